"""Files in an output that are not as framefleet wrote them end a command with an error that names them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from framefleet import JobError, Store, TableError
from framefleet.cluster.driver.lock import Holder
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.rows.tables.table import open_table
from framefleet.plugins.demo.demo import draw_pictures
from framefleet.plugins.train.checkpoints import Checkpoints
from framefleet.plugins.train.dataset.columns import plan_columns
from framefleet.plugins.train.finish import read_finished
from framefleet.plugins.train.reports import read_losses
from framefleet.plugins.train.resolve import read_training_claim
from tests.commands import command
from tests.configs import WAN, write_model
from tests.jobs import job_values, prompt_rows as job_rows, write_job, write_table
from tests.outputs import committed_row_ids
from tests.shapes_output import output_of
from tools.shapes.prompts import prompt_rows

JUNK: dict[str, bytes] = {
    "nothing": b"",
    "not UTF-8": b"\xff\xfe\x00",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "no keys": b"{}",
    "deep": b'{"job":' * 100_000,
    "a long number": b'{"step": ' + b"9" * 10_000 + b"}",
}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    table = write_table(tmp_path / "t.parquet", job_rows(2))
    return write_job(tmp_path / "job.yaml", job_values(table, tmp_path / "out"))


def planned(job: Path, path: str, content: bytes) -> str:
    """Put a file into the output; return what `plan`, which must refuse it, says."""
    file = job.parent / "out" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    ended = command("plan", job, exits=2)
    return " ".join(ended.output.split())


@pytest.mark.parametrize("content", JUNK.values(), ids=JUNK)
def test_a_job_json_or_a_part_that_is_none(job: Path, content: bytes) -> None:
    assert "job.json is not as framefleet wrote it" in planned(job, "job.json", content)
    (job.parent / "out/job.json").unlink()
    said = planned(job, "records/part-x.parquet", content)
    assert "part-x.parquet is not a part that framefleet wrote" in said


@pytest.mark.parametrize("changed", [{"numerics": [1]}, {"job": {"media": {}, "defaults": 7, "loras": {}}}])
def test_a_job_json_that_says_other_things_is_another_jobs(job: Path, changed: dict[str, Any]) -> None:
    (job.parent / "out/clips/ab").mkdir(parents=True)
    (job.parent / "out/clips/ab/ab.mp4").touch()
    claim = {"job": {}} | changed | {"model_digest": "x" * 10_000}
    said = planned(job, "job.json", json.dumps(claim).encode())
    assert "holds clips of another job" in said and len(said) < 10_000


def test_row_ids_that_are_none(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    for row_id in ("../../x", "", None, "é" * 32, "A" * 32):
        file = tmp_path / "part"
        pq.write_table(pa.table({"row_id": pa.array([row_id], pa.string())}), file)
        store.write("records/part-x.parquet", file.read_bytes())
        with pytest.raises(JobError, match=r"part-x.parquet is not a part"):
            committed_row_ids(store)


READERS: dict[str, Callable[[Store], Any]] = {
    "train.json": read_training_claim,
    "finished.json": read_finished,
    "loss.jsonl": read_losses,
    "checkpoints/3/checkpoint.json": lambda store: Checkpoints(store, keep=1).last(),
}


@pytest.mark.parametrize("path", READERS)
def test_a_file_of_a_training_that_is_none(tmp_path: Path, path: str) -> None:
    store = Store(str(tmp_path))
    for content in JUNK.values():
        store.write(path, content)
        if path != "loss.jsonl" or content:  # else there was no step yet
            with pytest.raises(JobError, match=f"{path} is not as framefleet wrote it"):
                READERS[path](store)


@pytest.mark.parametrize(
    "changed", [{"step": 4}, {"files": {"/etc/passwd": "0"}}, {"files": ["a"]}, {"scale": 1}]
)
def test_a_checkpoint_of_other_files(tmp_path: Path, changed: dict[str, Any]) -> None:
    store, path = Store(str(tmp_path)), "checkpoints/3/checkpoint.json"
    honest = {"step": 3, "files": {"checkpoints/3/part-00001.safetensors": "0"}, "scale": {}}
    store.write(path, json.dumps(honest).encode())
    store.write("checkpoints/٣/x", b"")  # a number, and no folder of ours
    assert Checkpoints(store, keep=1).last() is not None
    store.write(path, json.dumps(honest | changed).encode())
    with pytest.raises(JobError, match=r"checkpoint\.json is not as framefleet wrote it"):
        Checkpoints(store, keep=1).last()


def test_a_lock_with_other_values_is_nobodys() -> None:
    ours = Holder.here("me")
    content = json.loads(ours.to_bytes())
    assert Holder.parse(json.dumps(content).encode()) == ours
    for key in ("owner", "host", "machine", "pid", "process_started", "beat"):
        for value in ([], {}, None, *["../.."] * (key == "pid")):
            assert Holder.parse(json.dumps(content | {key: value}).encode()) is None


ROWS = prompt_rows(num_scenes=1, languages=["en"], guidance_scales=[4.0])


def spoiled(folder: Path, **changed: Any) -> Path:
    """An output of shapes, one column of whose records is another."""
    output_of(folder, ROWS)
    (part,) = (folder / "records").iterdir()
    table = pq.read_table(part)
    for name, value in changed.items():
        column = pa.array([value] * table.num_rows)
        table = table.set_column(table.column_names.index(name), name, column)
    part.unlink()
    pq.write_table(table, part.with_name("part-x.parquet"))  # a name that says nothing of its bytes
    return folder


def test_pictures_of_images_and_of_odd_rates_are_drawn(tmp_path: Path) -> None:
    for number, fps in enumerate((None, 0.0, float("nan"), 1e308)):
        folder = spoiled(tmp_path / str(number), fps=pa.scalar(fps, pa.float64()))
        assert draw_pictures(folder)["animation"].exists()


@pytest.mark.parametrize("column", ["arguments", "uri"])
def test_records_of_other_types_are_no_rows_to_train_on(tmp_path: Path, column: str) -> None:
    spec = inspect_model(write_model(tmp_path / "model", "WanPipeline", WAN))
    folder = spoiled(tmp_path / "out", **{column: 7})
    table = open_table(str(folder / "records"))
    with pytest.raises(TableError, match=f"column '{column}' holds int64"):
        plan_columns(table, spec, "denoiser")
