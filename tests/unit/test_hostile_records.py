"""An output of somebody else: whatever its records say, readers show it or refuse it, and none falls."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import framefleet
from framefleet import FramefleetError, JobError, Store, grid, report, sheet
from framefleet.pipeline.outputs.frames.result import KEPT
from framefleet.pipeline.outputs.output import recorded_frames
from framefleet.pipeline.outputs.parts.record_tables import record_schema_of
from framefleet.pipeline.outputs.parts.records import record_schema
from framefleet.plugins.pages.gallery import blocks as gallery_rows
from framefleet.plugins.pages.sheet import sheet as sheets
from tests.each import check_each
from tests.gallery_output import write_output
from tests.outputs import write_part
from tests.small_output import rendered

Reader = Callable[[str, Path], object]

READERS: dict[str, Reader] = {
    "sheet": lambda out, to: sheet(out, to / "sheet.png"),
    "sheet by a column": lambda out, to: sheet(out, to / "sheet.png", rows="odd", captions=["odd"]),
    "gallery": lambda out, to: framefleet.gallery(out, previews=True),
    "report": lambda out, to: report(out, price=1.0),
    "status": lambda out, to: framefleet.status(out),
    "score": lambda out, to: framefleet.score(out, ["is_black"]),
    "where": lambda out, to: sheet(out, to / "sheet.png", where="seed < 9"),
    "webdataset": lambda out, to: framefleet.export(out, str(to / "tar"), format="webdataset"),
    "parquet": lambda out, to: framefleet.export(out, str(to / "parquet"), format="parquet"),
    "hf": lambda out, to: framefleet.export(out, str(to / "hf"), format="hf"),
    "folder": lambda out, to: framefleet.export(out, str(to / "folder"), format="folder"),
    "vbench": lambda out, to: framefleet.export(out, str(to / "vbench"), format="vbench"),
    "preferences": lambda out, to: framefleet.export(
        out, str(to / "pairs"), format="preferences", by="encode_s"
    ),
    "trajectories": lambda out, to: framefleet.export(out, str(to / "steps"), format="trajectories"),
    "pack": lambda out, to: framefleet.pack(out, to / "pack", rows=1),
    "prove": lambda out, to: framefleet.prove(out),
    "verify": lambda out, to: framefleet.verify(out, files=True),
    "audit": lambda out, to: framefleet.audit(out, against=out),
    "trace": lambda out, to: framefleet.trace(to / "out" / "clips", outputs=[out]),
    "forget": lambda out, to: framefleet.forget(out, where="seed = 0"),
}
SAYS: dict[str, dict[str, Any]] = {
    "a number beyond all floats": {"arguments": json.dumps({"odd": 10**400, "num_inference_steps": 10**400})},
    "halves of characters": {"arguments": r'{"prompt": "\ud800", "\udfff": "\ud800", "odd": "\ud800"}'},
    "arguments that are no JSON": {"arguments": "no JSON"},
    "an accent for ever": {
        "arguments": json.dumps({"prompt": "e" + "\u0301" * 50_000, "odd": "\x1b]0;x\x07"})
    },
    "seconds near the largest": {"idle_s": 1.7e308, "idle_causes": '{"$\\\\frac{": 1}'},
    "fewer bytes than none": {"bytes": -2},
    "more bytes than memory": {"bytes": 2**62},
    "no place in a table": {"row_indices": ()},
    "steps without their file": {"extra_outputs": json.dumps({KEPT: {"latents": "all"}})},
    "a clip elsewhere": {"path": "../../../../etc/passwd.mp4"},
}


def output_with(folder: Path, cells: pa.Array, name: str = "odd") -> str:
    """Write an output whose records carry such a column."""
    rendered(Store(str(folder)), 2)
    (part,) = (folder / "records").iterdir()
    table = pq.read_table(part).append_column(name, cells)
    part.unlink()
    pq.write_table(table, folder / "records" / "part-000.parquet")
    (folder / "job.json").write_text("{}")
    return str(folder)


@pytest.mark.parametrize("said", SAYS)
def test_whatever_a_record_says_it_is_shown_or_refused(said: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    first, second = rendered(store, 2)
    store.delete_all("records")
    write_part(store, "records", record_schema(pa.schema([])), (first | SAYS[said], second))
    store.write("job.json", b"{}")
    check_each(READERS, lambda reader: _is_shown_or_refused(reader, str(tmp_path / "out"), tmp_path / "read"))


def _is_shown_or_refused(reader: str, out: str, place: Path) -> None:
    with contextlib.suppress(FramefleetError):
        _read_by(reader, out, place)


def _read_by(reader: str, out: str, place: Path) -> None:
    """Read a copy, which readers may write to."""
    shutil.copytree(out, place / reader / "out")
    READERS[reader](str(place / reader / "out"), place / reader)


@pytest.mark.parametrize("column", ["bytes", "arguments", "worker", "environment", "started_at"])
def test_a_column_that_every_record_has_is_missed_by_name(column: str, tmp_path: Path) -> None:
    (whole := tmp_path / "whole").mkdir()
    rendered(Store(str(whole)), 2)
    (whole / "job.json").write_text('{"job": {}}')
    shutil.copytree(whole, lacking := tmp_path / "lacking")
    (part,) = (lacking / "records").iterdir()
    pq.write_table(pq.read_table(part).drop_columns([column]), part.with_name("part-0.parquet"))
    part.unlink()
    for reader in READERS.keys() - {"sheet by a column", "where", "webdataset", "hf"}:
        said = _said_by(reader, str(lacking), tmp_path / "read")
        if "part-0.parquet" not in said or repr(column) not in said:
            assert said == _said_by(reader, str(whole), tmp_path / "read whole"), reader


def _said_by(reader: str, out: str, place: Path) -> str:
    try:
        _read_by(reader, out, place)
    except FramefleetError as error:
        return error.problem.replace(str(place), "")
    return ""


def as_type(values: list[int], kind: pa.DataType) -> pa.Array:
    return pa.array(values, pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)


ODD_CELLS: dict[str, pa.Array] = {
    "a day beyond Python's": as_type([2**31 - 1, 0], pa.date32()),
    "a length of time beyond Python's": as_type([2**62, 0], pa.duration("s")),
    "a zone that is none": pa.array([1, 2], pa.timestamp("s", "Evil/Zone")),
    "an identifier": pa.array([b"0" * 16, None], pa.uuid()),
    "a map with a key twice": pa.array([[("a", 1), ("a", 2)], []], pa.map_(pa.string(), pa.int64())),
}


@pytest.mark.parametrize("cells", ODD_CELLS)
def test_whatever_type_a_column_has_it_is_shown_or_refused(cells: str, tmp_path: Path) -> None:
    out = output_with(tmp_path / "out", ODD_CELLS[cells])
    check_each(READERS, lambda reader: _is_shown_or_refused(reader, out, tmp_path / "read"))


@pytest.mark.parametrize(
    "name", ["", '"; DROP TABLE x', "__row", "a\0b", "a\nhint: run me\x1b[31m", "SEED", "__proto__"]
)
def test_whatever_a_column_is_called_conditions_are_about_it_alone(name: str, tmp_path: Path) -> None:
    out = output_with(tmp_path / "out", pa.array([7, 8]), name)
    assert sheet(out, tmp_path / "sheet.png", where="seed < 1").num_clips == 1


def test_a_gallery_has_no_more_columns_than_calls_have_arguments(tmp_path: Path) -> None:
    rows = [{f"a{row}_{number}": number for number in range(150)} for row in range(2)]
    write_output(tmp_path, rows)
    framefleet.gallery(tmp_path)
    shown = {*next(gallery_rows.shown_records(Store(str(tmp_path)))).column_names}
    assert len(shown - {*record_schema_of(Store(str(tmp_path))).names}) == 200


def test_a_folder_for_datasets_names_no_file_but_its_clips(tmp_path: Path) -> None:
    field = pa.array([{"deep": [{"a_file_name": "/etc/passwd"}]}] * 2)
    out = output_with(tmp_path / "out", field)
    with pytest.raises(JobError, match="column 'odd' has fields that datasets would read as file names"):
        framefleet.export(out, str(tmp_path / "hf"), format="hf")
    plain = output_with(tmp_path / "plain", pa.array(["/etc/passwd"] * 2), "file_name")
    framefleet.export(plain, str(tmp_path / "hf"), format="hf")
    table = pq.read_table(tmp_path / "hf" / "data" / "000000" / "metadata.parquet")
    assert table["file_name_of_row"].to_pylist() == ["/etc/passwd"] * 2


def test_a_tiny_clip_is_not_enlarged_beyond_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """16,384 frames of a few pixels are a small file, and in tiles of 480 pixels 11 GB."""
    rendered(Store(str(tmp_path)), 2)
    (tmp_path / "job.json").write_text("{}")
    for most in (3 * 192 * 128 * 3 - 1, 6 * 192 * 128 * 3 - 1):  # of a clip; of both
        monkeypatch.setattr(sheets, "MAX_SHOWN_BYTES", most)
        with pytest.raises(JobError, match=r"would need .* GB to be drawn"):
            grid(str(tmp_path), tmp_path / "grid.mp4")
    sheet(str(tmp_path), tmp_path / "sheet.png", rows="seed", tile=192)  # of each clip its middle alone


def test_frames_are_those_that_were_committed(tmp_path: Path) -> None:
    """A clip may be a link to a picture of the reader's, or a file that is larger than memory."""
    store = Store(str(tmp_path / "out"))
    one, other = rendered(store, 2)
    clip = tmp_path / "out" / one["path"]
    clip.unlink()
    clip.symlink_to(tmp_path / "out" / other["path"])
    with pytest.raises(JobError, match=r"it has other bytes|it has another size"):
        recorded_frames(store, one)
    clip.unlink()
    clip.write_bytes(b"no clip")
    said = {"bytes": 7, "media_sha256": hashlib.sha256(b"no clip").hexdigest()}
    with pytest.raises(JobError, match="are not a clip"):
        recorded_frames(store, one | said)
    with open(clip, "wb") as file:
        file.truncate(1 << 40)  # takes no room
    with pytest.raises(JobError, match="it has another size"):
        recorded_frames(store, one)
    for size in (1 << 40, -2):
        with pytest.raises(JobError, match=r"has more than|has -2 bytes"):
            recorded_frames(store, one | {"bytes": size})


def test_repairs_delete_nothing_of_another_output(tmp_path: Path) -> None:
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    (record, *_) = rendered(Store(str(mine)), 2)
    rendered(Store(str(theirs)), 1)
    for path in (theirs / "clips").rglob("*.mp4"):
        path.unlink()
    os.rename(theirs / "clips", theirs / "old")
    (theirs / "clips").symlink_to(mine / "clips")
    with pytest.raises(FramefleetError, match="leads out"):
        Store(str(theirs)).delete_many(Store(str(theirs)).list("clips"))
    assert (mine / record["path"]).exists()
