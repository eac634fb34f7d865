"""Rows of an output rendered again: what kind of difference there is, to their records and their files."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save

import framefleet
from framefleet import JobError, Store
from framefleet.pipeline.outputs.frames.frames import Frames, frames_sha256
from framefleet.pipeline.outputs.frames.result import Audio, audio_sha256
from framefleet.pipeline.outputs.gone_clips import look_for_clips
from framefleet.pipeline.outputs.layout import clip_path
from framefleet.pipeline.outputs.media.media import decode, encode, read_metadata
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.parts import find_record
from framefleet.pipeline.outputs.parts.records import Record, values_of
from framefleet.pipeline.outputs.parts.seals import live_parts
from framefleet.plugins.keep.damage import look_at
from framefleet.plugins.keep.replay.compare import Again, Compared, compare
from tests.commands import command
from tests.here import render_here
from tests.jobs import job_values, prompt_rows, write_table
from tests.model_files import flip_a_byte
from tests.outputs import change_records
from tests.rows import record

Output = tuple[Path, list[str]]


def rendered(folder: Path, **media: Any) -> Output:
    """Render four rows; return the output and their row_ids."""
    rows = [{name: row[name] for name in ("prompt", "seed")} for row in prompt_rows(4)]
    values = job_values(write_table(folder / "t.parquet", rows), folder / "out", media=media)
    defaults = values["defaults"] | {"num_inference_steps": 2, "height": 64, "width": 64}
    place, row_ids = render_here(values | {"defaults": defaults})
    return Path(place), row_ids


@pytest.fixture(scope="module")
def lossless(tmp_path_factory: pytest.TempPathFactory) -> Output:
    return rendered(tmp_path_factory.mktemp("verify"), format="mkv")


@pytest.fixture(scope="module")
def lossy(tmp_path_factory: pytest.TempPathFactory) -> Output:
    """Return the same rows as mp4."""
    return rendered(tmp_path_factory.mktemp("verify"))


@pytest.fixture
def out(lossless: Output, tmp_path: Path) -> Path:
    """Return a lossless output that may be changed."""
    return shutil.copytree(lossless[0], tmp_path / "out")


@pytest.fixture
def mp4s(lossy: Output, tmp_path: Path) -> Path:
    return shutil.copytree(lossy[0], tmp_path / "mp4s")


def test_an_output_that_was_moved_is_verified_replayed_and_rendered_on(
    lossless: Output, tmp_path: Path
) -> None:
    place, row_ids = lossless
    moved = shutil.copytree(place, tmp_path / "moved")
    place.rename(place.with_name("hidden"))
    try:
        assert framefleet.verify(str(moved), files=True).is_well
        assert framefleet.replay(str(moved), row_ids[0]).is_equal
        assert framefleet.repair(str(moved)).repairs.num_rows == 0
        store = Store(str(moved))
        parts = [part.path for part in live_parts(store)]
        assert look_for_clips(store, parts, num_records=len(row_ids)) is None
    finally:
        place.with_name("hidden").rename(place)


def change_record(out: Path, row_id: str, **changed: Any) -> None:
    """Let the record of a row say something else."""

    def change(table: pa.Table) -> dict[str, list[Any]]:
        row_ids = table["row_id"].to_pylist()
        columns = {name: zip(row_ids, table[name].to_pylist(), strict=True) for name in changed}
        return {
            name: [changed[name] if of == row_id else cell for of, cell in cells]
            for name, cells in columns.items()
        }

    change_records(out, change)


def clip_of(out: Path, row_id: str) -> Path:
    (path,) = (out / "clips").rglob(f"{row_id}*")
    return path


def recorded_otherwise(out: Path, row_id: str, frames: Frames, media: Media, **environment: str) -> None:
    """Let a row have been rendered elsewhere, with these frames."""
    path = clip_of(out, row_id)
    content = encode(frames, media=media, fps=16.0, metadata=read_metadata(path.read_bytes()))
    path.write_bytes(content)
    then = json.loads(find_record(Store(str(out)), row_id).environment)
    change_record(
        out,
        row_id,
        frames_sha256=frames_sha256(frames),
        media_sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        environment=json.dumps(then | environment),
    )


def off_by(frames: Frames, levels: int, share: float) -> Frames:
    """Return frames of which some pixels are so many levels off."""
    is_off = np.random.default_rng(1).random(frames.shape[:3]) < share
    moved = np.where(frames > 127, frames - np.uint8(levels), frames + np.uint8(levels))
    return np.where(is_off[..., None], moved, frames)


def spoil(out: Path, row_ids: list[str], frames: list[Frames], media: Media) -> None:
    """Let each row differ in its way: by one level, by its frames, in its record, and in its file."""
    recorded_otherwise(out, row_ids[0], off_by(frames[0], 1, 0.01), media)
    recorded_otherwise(out, row_ids[1], frames[2], media)
    change_record(out, row_ids[2], frames_sha256="5" * 64)
    flip_a_byte(clip_of(out, row_ids[3]), 999)


@pytest.mark.parametrize(("embed", "recorded"), [("tags", None), ("id", "id")])
def test_a_file_is_written_again_as_its_record_says(embed: str, recorded: str | None, tmp_path: Path) -> None:
    place, row_ids = rendered(tmp_path, embed=embed)
    change_record(place, row_ids[0], embed=recorded)
    claim = json.loads((place / "job.json").read_text())
    del claim["job"]["media"]["embed"]  # which version 0.1.0 does not write
    (place / "job.json").write_text(json.dumps(claim))
    digests = {name: (then, now) for name, then, now in framefleet.replay(place, row_ids[0]).digests}
    assert digests["media_sha256"][0] == digests["media_sha256"][1]
    change_record(place, row_ids[0], embed="all")
    with pytest.raises(JobError, match=r"column 'embed' of the record of row .* it is 'all'"):
        framefleet.replay(place, row_ids[0])


def verified(out: Path, *row_ids: str) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    """Return the exit code of `framefleet verify --json`, what it says of each row, and its last line."""
    ended = command("verify", out, "--json", *(part for row_id in row_ids for part in ("--row", row_id)))
    *rows, last = map(json.loads, ended.stdout.splitlines())
    return ended.exit_code, rows, last


def test_a_sample_of_an_output_that_is_whole_is_bit_exact(lossless: Output, lossy: Output) -> None:
    for place, _ in (lossless, lossy):
        ended = command("verify", place, "--sample", "2", exits=0)
        assert ended.stdout.count(": bit-exact") == 2 and "2 rows: 2 bit-exact" in ended.stderr
    assert framefleet.verify(str(lossy[0]), row_ids=lossy[1][3:]).is_well


def test_each_kind_of_difference_of_lossless_clips_has_its_verdict(out: Path, lossless: Output) -> None:
    row_ids = lossless[1]
    frames = [decode(clip_of(out, row_id).read_bytes()) for row_id in row_ids]
    spoil(out, row_ids, frames, Media(format="mkv"))
    exit_code, (one, other, record, file), last = verified(out, *row_ids)
    assert exit_code == 1
    assert (one["verdict"], one["max_levels"]) == ("off by one", 1.0)
    assert one["num_pixels"] == (off_by(frames[0], 1, 0.01) != frames[0]).any(axis=-1).sum()
    assert one["share"] == one["num_pixels"] / frames[0][..., 0].size
    assert one["psnr_db"] > 48.1  # one level everywhere
    assert other["verdict"] == "different" and other["psnr_db"] < 30 and other["share"] > 0.5
    which = (record["verdict"], record["which"], record["doubt"], record["psnr_db"], record["damages"])
    assert which == ("record damaged", ["frames_sha256"], None, None, [])
    assert (file["verdict"], file["which"], file["doubt"]) == ("file damaged", [], None)
    assert [damage["kind"] for damage in file["damages"]] == ["bytes"]
    kinds = ("off by one", "different", "record damaged", "file damaged")
    assert last == {"num_rows": 4, "verdicts": dict.fromkeys(kinds, 1)}
    found = framefleet.verify(str(out), row_ids=row_ids[2:3])
    assert not found.is_well and found.verdicts == {"record damaged": 1}
    replayed = command("replay", out, row_ids[2])
    assert replayed.exit_code == 1 and "verdict: record damaged, frames_sha256" in replayed.stdout


def test_each_kind_of_difference_of_mp4s_has_its_verdict(mp4s: Path, lossless: Output) -> None:
    row_ids = lossless[1]
    frames = [decode(clip_of(lossless[0], row_id).read_bytes()) for row_id in row_ids]
    spoil(mp4s, row_ids, frames, Media())
    exit_code, (one, other, record, file), _ = verified(mp4s, *row_ids)
    assert exit_code == 1
    assert one["verdict"] == "off by about one"
    assert one["share"] > 0.1 and one["max_levels"] > 1  # an encoder makes more of it
    assert one["psnr_db"] > one["one_level_psnr_db"] > 30
    assert other["verdict"] == "different" and other["psnr_db"] < other["one_level_psnr_db"] - 5
    assert (record["verdict"], record["which"]) == ("record damaged", ["frames_sha256"])
    assert "differ by less than this lossy file" in record["doubt"]
    assert file["verdict"] == "file damaged"
    said = command("verify", mp4s, "--row", row_ids[2], "--row", row_ids[3])
    assert "1 record damaged, 1 file damaged" in said.stderr, said.stderr
    assert f"\n  {record['doubt']}\n" in said.stdout


def test_files_of_another_encoder_are_not_said_to_show_other_frames(mp4s: Path, lossless: Output) -> None:
    row_ids = lossless[1]
    frames = [decode(clip_of(lossless[0], row_id).read_bytes()) for row_id in row_ids]
    rougher = Media(crf=26)
    for number, environment in enumerate(({}, {"av": "14.0.0"})):
        moved = off_by(frames[number], 1, 0.01)
        recorded_otherwise(mp4s, row_ids[number], moved, rougher, **environment)
    recorded_otherwise(mp4s, row_ids[2], frames[3], rougher, av="14.0.0")
    _, (known, unknown, far), _ = verified(mp4s, *row_ids[:3])
    assert (known["verdict"], known["doubt"]) == ("different", None)
    assert unknown["verdict"] == "other encoder" and "av 14.0.0 then" in unknown["doubt"]
    assert far["verdict"] == "different" and "av 14.0.0 then" in far["doubt"]


def test_a_file_that_the_row_gives_again_proves_the_record_wrong(out: Path, lossless: Output) -> None:
    row_ids = lossless[1]
    change_record(out, row_ids[0], media_sha256="5" * 64)
    change_record(out, row_ids[1], bytes=7)
    change_record(out, row_ids[2], frames_sha256="5" * 64, media_sha256="5" * 64)
    clip_of(out, row_ids[3]).unlink()
    _, rows, _ = verified(out, *row_ids)
    assert [row["verdict"] for row in rows] == [*["record damaged"] * 3, "file damaged"]
    named = [row["which"] for row in rows]
    assert named == [["media_sha256"], ["bytes"], ["frames_sha256", "media_sha256"], []]
    replayed = command("replay", out, row_ids[3])
    assert replayed.exit_code == 1 and "stored clip: missing" in replayed.stdout
    assert "verdict: file damaged" in replayed.stdout


def test_a_file_of_other_bytes_whose_digest_nothing_confirms_is_in_doubt(
    mp4s: Path, lossless: Output
) -> None:
    row_id = lossless[1][0]
    change_record(mp4s, row_id, media_sha256="5" * 64)
    clip = clip_of(mp4s, row_id)
    clip.write_bytes(encode(decode(clip.read_bytes()), media=Media(), fps=16.0, metadata={}))
    _, (row,), _ = verified(mp4s, row_id)
    assert row["verdict"] == "file damaged" and "media_sha256 is wrong" in row["doubt"]


def test_rows_that_cannot_be_rendered_are_counted_and_alone_end_with_2(out: Path, lossless: Output) -> None:
    row_ids = lossless[1]
    change_record(out, row_ids[0], model_digest="5" * 64)
    exit_code, (lost, well), last = verified(out, *row_ids[:2])
    assert exit_code == 1 and (lost["verdict"], well["verdict"]) == ("not rendered", "bit-exact")
    assert "is not the one that rendered this row" in lost["error"]
    assert last["verdicts"] == {"not rendered": 1, "bit-exact": 1}
    assert verified(out, row_ids[0])[0] == 2


def sound(change: float) -> Audio:
    waves = 0.5 * np.sin(np.arange(16000) / 20) + change
    return Audio(samples=waves[None].astype(np.float32), sample_rate=16000)


@pytest.mark.parametrize(("format", "is_lossy"), [("mkv", False), ("mp4", True)])
def test_digests_of_sound_and_of_arrays_are_told_from_other_sound_and_other_arrays(
    format: Any, is_lossy: bool, tmp_path: Path
) -> None:
    store, frames, media = Store(str(tmp_path)), np.full((16, 32, 32, 3), 100, np.uint8), Media(format=format)
    arrays, path = save({"c2w": torch.eye(4)}), clip_path("0" * 32, f".{format}")
    files = [encode(frames, media=media, fps=16.0, metadata={}, audio=sound(change)) for change in (0, 0.01)]
    now = record_of(files[0], frames, arrays, format)
    again = Again(record=now, media=media, frames=lambda: frames, content=lambda: files[0])

    def compared(**changed: Any) -> Compared:
        then = replace(now, **changed)
        return compare(store, then, again, damages=look_at(store, values_of(then)))

    store.write(path, files[0])
    store.write(now.extra_outputs_path or "", arrays)
    found = compared(audio_sha256="5" * 64)
    assert (found.verdict, found.which) == ("record damaged", ("audio_sha256",))
    assert (found.doubt is not None) == is_lossy
    found = compared(extra_outputs_sha256="5" * 64)
    assert found == Compared(verdict="record damaged", which=("extra_outputs_sha256",))
    found = compared(extra_outputs="{}")
    assert found.verdict == "different" and "no file has a copy" in (found.doubt or "")
    store.write(now.extra_outputs_path or "", save({"c2w": torch.zeros(4)}))
    assert compared().verdict == "file damaged"
    store.write(path, files[1])
    store.write(now.extra_outputs_path or "", arrays)
    sha256 = hashlib.sha256(files[1]).hexdigest()
    found = compared(bytes=len(files[1]), media_sha256=sha256, audio_sha256="5" * 64)
    assert found.verdict == "different" and 30 < (found.psnr_db or 0) < 50


def record_of(content: bytes, frames: Frames, arrays: bytes, format: str) -> Record:
    return record(
        0,
        path=clip_path("0" * 32, f".{format}"),
        bytes=len(content),
        media_sha256=hashlib.sha256(content).hexdigest(),
        frames_sha256=frames_sha256(frames),
        frames_format="rgb uint8",
        audio_sha256=audio_sha256(sound(0)),
        extra_outputs='{"a":1}',
        extra_outputs_sha256=hashlib.sha256(arrays).hexdigest(),
        extra_outputs_path=f"extras/{'0' * 32}.safetensors",
    )


def test_floats_beyond_the_range_are_compared_as_they_are(tmp_path: Path) -> None:
    store, media = Store(str(tmp_path)), Media(format="exr.zip")
    frames = np.linspace(-1, 2, 4 * 32 * 32 * 3, dtype=np.float32).reshape(4, 32, 32, 3)
    content = encode(frames, media=media, fps=16.0, metadata={})
    then = replace(record_of(content, frames, b"", "exr.zip"), extra_outputs_sha256=None, audio_sha256=None)
    store.write(then.path or "", content)
    cases = (("record damaged", 0.0), ("off by one", 0.5 / 255), ("different", 4 / 255))
    for verdict, change in cases:
        moved = frames + np.float32(change)
        encoded = encode(moved, media=media, fps=16.0, metadata={})
        now = replace(then, frames_sha256=frames_sha256(moved))
        again = Again(
            record=now, media=media, frames=partial(np.copy, moved), content=partial(bytes, encoded)
        )
        damaged = replace(then, frames_sha256="5" * 64)
        assert compare(store, damaged, again, damages=()).verdict == verdict
