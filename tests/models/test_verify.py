"""Rows of an output rendered again: the same bits, off by a level, or how far off; and what is stored."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import framefleet
from framefleet.jobs.replay.replay import replay
from framefleet.jobs.verify.compare import compare
from framefleet.pipeline.outputs.frames.frames import frames_sha256
from framefleet.pipeline.outputs.glance import GLANCED, GLANCED_MAYBE, Glance
from framefleet.pipeline.outputs.media.media import decode, encode
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.parts import find_record
from framefleet.pipeline.outputs.parts.record_tables import record_tables
from framefleet.pipeline.outputs.stores.store import Store
from tests.commands import command
from tests.here import render_here
from tests.jobs import job_values, prompt_rows, write_table
from tests.rows import record


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Return an output of four rows of lossless clips."""
    folder = tmp_path_factory.mktemp("verify")
    rows = [{name: row[name] for name in ("prompt", "seed")} for row in prompt_rows(4)]
    table = write_table(folder / "t.parquet", rows)
    values = job_values(table, folder / "out", media={"format": "mkv"})
    place, row_ids = render_here(values | {"defaults": values["defaults"] | {"num_inference_steps": 2}})
    return Path(place), row_ids


def test_an_output_that_was_moved_is_verified_replayed_and_rendered_on(
    output: tuple[Path, list[str]], tmp_path: Path
) -> None:
    place, row_ids = output
    moved = shutil.copytree(place, tmp_path / "moved")
    place.rename(place.with_name("hidden"))
    try:
        assert framefleet.verify(str(moved), files=True).is_well
        assert replay(str(moved), row_ids[0]).is_equal
        assert framefleet.repair(str(moved)).mended.num_rows == 0
        glance, store = Glance(), Store(str(moved))
        for table in record_tables(store, [*GLANCED.names, *GLANCED_MAYBE.names]):
            glance.note(table)
        assert glance.look(store) is None
    finally:
        place.with_name("hidden").rename(place)


def recorded_otherwise(out: Path, row_id: str, change: int) -> None:
    """Let a row have been rendered elsewhere: with other values in the first row of its pixels."""
    store = Store(str(out))
    then = find_record(store, row_id)
    path = then.path or ""
    frames = decode(store.read(path)).copy()
    frames[:, 0] = np.where(frames[:, 0] > 127, frames[:, 0] - change, frames[:, 0] + change)
    content = encode(frames, media=Media(format="mkv"), fps=then.fps or 16.0, metadata={})
    store.write(path, content)
    changed = {
        "frames_sha256": frames_sha256(frames),
        "media_sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    (part,) = (out / "records").iterdir()
    table = pq.read_table(part)
    place = table["row_id"].to_pylist().index(row_id)
    for name, value in changed.items():
        values = table[name].to_pylist()
        values[place] = value
        column = pa.array(values, table.schema.field(name).type)
        table = table.set_column(table.column_names.index(name), table.schema.field(name), column)
    part.unlink()
    pq.write_table(table, out / "records" / "part-x.parquet")


def test_a_sample_is_verified_and_each_row_is_told_as_it_is(output: tuple[Path, list[str]]) -> None:
    out, row_ids = output
    ended = command("verify", out, "--sample", "2")
    assert ended.exit_code == 0, ended.output
    assert ended.stdout.count(": bit-exact") == 2 and "2 of 2 rows are well" in ended.stderr
    recorded_otherwise(out, row_ids[0], 1)
    recorded_otherwise(out, row_ids[1], 40)
    (path,) = (out / "clips").rglob(f"{row_ids[2]}*")
    path.unlink()
    ended = command("verify", out, "--json", *(part for row_id in row_ids for part in ("--row", row_id)))
    one, far, gone, well = (json.loads(line) for line in ended.stdout.splitlines())
    assert ended.exit_code == 1
    assert (one["verdict"], one["num_pixels"]) == ("off by one", 16 * 5)  # a row of pixels in five frames
    assert far["verdict"] == "different" and 10 < far["psnr_db"] < 40
    assert gone["verdict"] == "bit-exact" and [damage["kind"] for damage in gone["damages"]] == ["missing"]
    assert [row["is_well"] for row in (one, far, gone, well)] == [False, False, False, True]
    replayed = command("replay", out, row_ids[2])
    assert replayed.exit_code == 1 and "stored clip: missing" in replayed.stdout
    assert [damage.kind for damage in replay(str(out), row_ids[2]).damages] == ["missing"]
    assert not framefleet.verify(str(out), row_ids=row_ids[:1]).is_well
    assert framefleet.verify(str(out), row_ids=row_ids[3:]).is_well


def test_clips_with_loss_are_compared_as_they_are_decoded() -> None:
    frames = np.full((5, 32, 32, 3), 100, np.uint8)
    there, here = (
        encode(frames + change, media=Media(), fps=16.0, metadata={}) for change in (np.uint8(0), np.uint8(9))
    )
    then, now = record(1), record(1, frames_sha256="c" * 64)
    compared = compare(then, now, stored=lambda: there, again=lambda: here)
    assert compared.verdict == "different" and compared.num_pixels is None
    assert 25 < (compared.psnr_db or 0) < 33  # 9 of 255: 29 dB
    assert compare(then, now, stored=lambda: None, again=lambda: here).psnr_db is None
    assert compare(then, then, stored=lambda: None, again=lambda: here).verdict == "bit-exact"
