"""A record is its row: each column that follows from something is held against it, wherever it is trusted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import framefleet
from framefleet import JobError, Output
from framefleet.plugins.keep.record_law import LAW_COLUMNS, RecordLaw
from tests.commands import command
from tests.outputs import change_records

# What was measured or carried along, and where the output was: the seal of a certificate alone covers it.
SEALED_ALONE = {
    *("tag", "row_indices", "batch_size", "attempt", "worker", "node", "started_at", "finished_at"),
    *("encode_s", "denoise_s", "decode_s", "write_s", "compute_s", "idle_s", "idle_causes"),
    *("peak_memory_bytes", "media_encoder", "license"),
}


@pytest.fixture
def out(out: Path) -> Path:
    shutil.rmtree(out / "drivers")  # which knows the names of parts
    return out


def altered(cell: Any, kind: pa.DataType) -> Any:
    """Return another cell of a column."""
    changes: dict[Callable[[pa.DataType], bool], Callable[[], Any]] = {
        pa.types.is_boolean: lambda: not cell,
        pa.types.is_timestamp: lambda: cell + timedelta(seconds=1),
        pa.types.is_list: lambda: [*cell, 99],
        pa.types.is_string: lambda: ("0" if cell[0] != "0" else "1") + cell[1:] if cell else "f" * 64,
    }
    return next((change() for is_of, change in changes.items() if is_of(kind)), None) or (cell or 0) + 1


def alter(out: Path, column: str, change: Callable[[Any, pa.DataType], Any] = altered) -> str:
    """Change one cell of the first record, in a part that is sealed again; return the row_id."""

    def changed(table: pa.Table) -> dict[str, list[Any]]:
        first, *others = table[column].to_pylist()
        return {column: [change(first, table.schema.field(column).type), *others]}

    return change_records(out, changed)["row_id"][0].as_py()


def is_noticed(out: Path, **asked: Any) -> bool:
    try:
        return not framefleet.verify(out, **asked).is_well
    except JobError:
        return True


def test_each_altered_column_is_noticed_or_under_the_seal(out: Path, tmp_path: Path) -> None:
    seal, unnoticed = framefleet.prove(out).seal, set()
    for column in pq.read_schema(next((out / "records").iterdir())).names:
        copy = shutil.copytree(out, tmp_path / column)
        row_id = alter(copy, column)
        if is_noticed(copy, files=True) or is_noticed(copy, row_ids=[row_id]):
            continue
        unnoticed.add(column)
        assert framefleet.prove(copy).seal != seal or column == "uri", column
    assert unnoticed == SEALED_ALONE | {"uri"}  # where the output was at first: nothing is read from there


WRONG: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "threads": ("environment", lambda text: json.dumps(json.loads(text) | {"threads": 2})),
    "batching": ("numerics", lambda text: text.replace("exact", "fast")),
    "no JSON": ("arguments", lambda text: text[:-1]),
    "a schedule": ("guidance_scale", lambda number: number + 0.5),
    "no fps": ("fps", lambda fps: None),
    "a recipe of nobody": ("recipe", lambda recipe: "mine:f"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_record_that_is_not_its_row_is_neither_exported_nor_packed_and_repaired(
    wrong: str, out: Path, tmp_path: Path
) -> None:
    column, change = WRONG[wrong]
    row_id = alter(out, column, lambda cell, _: change(cell))
    verified = framefleet.verify(out, files=True)
    assert [(one.kind, one.row_id) for one in verified.damages] == [("record", row_id)]
    exported = command("export", out, tmp_path / "to", "--format", "parquet")
    assert exported.exit_code == 1 and f"so row {row_id} is left out" in exported.stderr, exported.output
    with pytest.raises(JobError, match=f"the record of row {row_id} is damaged"):
        framefleet.pack(out, tmp_path / "pack", row_ids=[row_id])
    repaired = command("repair", out)
    assert "1 record taken out" in repaired.stderr, repaired.output
    assert framefleet.verify(out, files=True).is_well


def test_a_row_under_anothers_row_id_is_noticed(out: Path) -> None:
    (part,) = (out / "records").iterdir()
    first, second, *others = pq.read_table(part).to_pylist()
    clips = [(out / row["path"]).read_bytes() for row in (first, second)]
    (out / first["path"]).write_bytes(clips[1])
    own = {name: first[name] for name in ("row_id", "path", "uri", "preview_path")}
    schema = pq.read_schema(part)
    part.unlink()
    pq.write_table(
        pa.Table.from_pylist([second | own, second, *others], schema), part.with_name("part-x.parquet")
    )
    (damage,) = framefleet.verify(out, files=True).damages
    assert damage.kind == "record" and "row_id does not match its arguments" in damage.reason


def test_one_digit_of_a_weight_in_job_json_is_noticed_and_put_back(out: Path) -> None:
    claim = json.loads((out / "job.json").read_text())
    name, digest = next(iter(claim["model_files"].items()))
    claim["model_files"][name] = ("0" if digest[0] != "0" else "1") + digest[1:]
    (out / "job.json").write_text(json.dumps(claim))
    problem = "the files of the model do not match its model_digest"
    (damage,) = framefleet.verify(out, files=True).damages
    assert (damage.kind, damage.reason) == ("job", problem)
    verified = command("verify", out, "--sample", "1")
    assert verified.exit_code == 2 and problem in verified.stderr, verified.output
    assert command("repair", out).exit_code == 0 and framefleet.verify(out, files=True).is_well


@pytest.mark.parametrize("name", ["output", "output_with_drafts", "output_with_drafts/drafts"])
def test_records_of_the_former_version_are_their_rows(name: str) -> None:
    output = Output.open(str(Path(__file__).parents[1] / "references" / name))
    law = RecordLaw.of(output.store, output.schema())
    for table in output.records([*LAW_COLUMNS, *law.own_columns]):
        assert len(table) and not law.contradictions(table)
