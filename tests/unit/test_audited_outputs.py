"""Clips of one output compared with those of another: which rows are one, what is counted, what is said."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

import framefleet
from framefleet import JobError, Output, Store
from framefleet.api.clips import Media, MediaFormat, encode
from framefleet.pipeline.outputs.frames.frames import Frames, frames_sha256
from framefleet.pipeline.outputs.layout import clip_path
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from framefleet.pipeline.outputs.parts.seals import new_run
from framefleet.pipeline.render.audit.schedule import Odds
from framefleet.plugins.audit.comparison import NO_DISTANCE, ComparedPair, Distance, distance_of
from framefleet.plugins.audit.lots import Lots
from framefleet.plugins.audit.report import DistanceTally, KindDistances
from tests.commands import command
from tests.rows import record

GUIDANCE = {"guidance_scale": 5.0}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of an output, with its clip. salt: of its row_id, as another model's rows have others."""

    seed: int
    frames: Frames
    arguments: Mapping[str, Any]
    format: MediaFormat = "mkv"
    salt: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)  # of its record


def frames_of(seed: int, *, num_frames: int = 3, off: int = 0) -> Frames:
    """Return noise of a seed; off: levels by which one pixel is off."""
    frames = np.random.default_rng(seed).integers(20, 200, (num_frames, 32, 48, 3), np.uint8)
    frames[1, 5, 7, 0] += off
    return frames


def row(seed: int, *, off: int = 0, **more: Any) -> Row:
    asked = {"prompt": f"ball {seed}", "height": 32, "width": 48, "num_frames": 3}
    return Row(**{"seed": seed, "frames": frames_of(seed, off=off), "arguments": asked} | more)


def output_of(folder: Path, rows: Iterable[Row]) -> Path:
    store = Store(str(folder))
    writer = PartWriter(store, "records", RECORD_FIELDS, run=new_run(1))
    for one in rows:
        content = encode(one.frames, media=Media(format=one.format), fps=8, metadata={})
        text = json.dumps(one.arguments)
        row_id = hashlib.md5(f"{one.salt} {one.seed} {text}".encode()).hexdigest()
        path = clip_path(row_id, f".{one.format}")
        store.create(path, content)
        said = {
            "row_id": row_id,
            "path": path,
            "media_sha256": hashlib.sha256(content).hexdigest(),
            "frames_sha256": frames_sha256(one.frames),
            "bytes": len(content),
            "seed": one.seed,
            "arguments": text,
            "num_frames": len(one.frames),
            **one.more,
        }
        writer.add(None, values_of(record(0)) | said)
    writer.flush()
    return folder


def exactness_in(output: Path) -> set[str | None]:
    tables = Output.open(str(output)).records(["exactness"])
    return {text for table in tables for text in table["exactness"].to_pylist()}


def test_outputs_are_compared_row_by_row(tmp_path: Path) -> None:
    ours = output_of(tmp_path / "ours", map(row, range(6)))
    others = [row(0), row(1, off=1), row(2, off=9), row(3, frames=frames_of(3, num_frames=2))]
    theirs = output_of(tmp_path / "theirs", [*others, row(4), row(77)])
    damaged = next((theirs / "clips").rglob(f"{hashlib.md5(row_text(4)).hexdigest()}.mkv"))
    damaged.write_bytes(damaged.read_bytes()[:-9])
    report = framefleet.audit(ours, against=theirs)
    assert (report.total.num_rows, report.total.num_compared, report.total.num_equal) == (5, 3, 1)
    assert (report.total.num_off, report.total.most_off) == (3, 3)
    assert report.problems == {"different size or number of frames": 1, "damaged there": 1}
    assert report.left_out == {"not in the other output": 1, "only in the other output": 1}
    (kind,) = report.kinds
    assert kind.kind == "generate 3 x 32 x 48"
    assert kind.max_levels == (1, 9, 9)
    assert kind.psnr_db[-1] == pytest.approx(10 * math.log10(255**2 * 3 * 32 * 48 * 3 / 81))
    assert report.bound == "3 of 5 clips (60 %) differ by more than 2 levels or could not be compared"
    assert exactness_in(ours) == {None, f"{report.bound}, against {theirs}"}


def row_text(seed: int) -> bytes:
    return f" {seed} {json.dumps(row(seed).arguments)}".encode()


def test_the_command_says_the_same_and_a_clip_that_is_off_is_exit_code_1(tmp_path: Path) -> None:
    ours, equal = (output_of(tmp_path / name, map(row, range(3))) for name in ("ours", "equal"))
    spoilt = output_of(tmp_path / "spoilt", [row(0), row(1), row(2, off=3)])
    ended = command("audit", ours, "--against", spoilt)
    assert ended.exit_code == 1 and "1 of 3 clips (34 %) differ by more than 2 levels" in ended.stdout
    assert command("audit", ours, "--against", spoilt, "--levels", "3").exit_code == 0
    ended = command("audit", ours, "--against", equal, "--json", exits=0)
    said = json.loads(ended.stdout)
    assert (said["total"]["num_equal"], said["kinds"][0]["psnr_db"]) == (3, [None] * 3)
    assert exactness_in(ours) == {"bits"}


def test_frames_that_were_equal_before_two_codecs_are_no_distance(tmp_path: Path) -> None:
    ours = output_of(tmp_path / "ours", [row(0), row(1, off=1)])
    theirs = output_of(tmp_path / "theirs", [row(seed, format="mp4") for seed in range(2)])
    report = framefleet.audit(ours, against=theirs)
    assert (report.total.num_compared, report.total.num_equal, report.total.num_off) == (2, 1, 1)


def test_what_only_one_output_asks_for_is_named_and_not_compared(tmp_path: Path) -> None:
    def asked(seed: int, **more: Any) -> Row:
        return row(seed, arguments={**row(seed).arguments, **more}, salt="other")

    ours = output_of(tmp_path / "ours", map(row, range(3)))
    theirs = [asked(0, guidance_scale=5.0), asked(1, guidance_scale=1), asked(1, guidance_scale=2)]
    report = framefleet.audit(ours, against=output_of(tmp_path / "theirs", theirs))
    assert (report.total.num_rows, report.total.num_equal, report.only_one_has) == (1, 1, ("guidance_scale",))
    assert report.left_out == {
        "not in the other output": 1,
        "ambiguous": 1,
        "ambiguous in the other output": 2,
    }
    both = output_of(tmp_path / "both", [asked(0, guidance_scale=5), asked(1, guidance_scale=7)])
    report = framefleet.audit(tmp_path / "theirs", against=both)
    assert report.total.num_rows == 1 and report.left_out["not in the other output"] == 2


def test_rows_of_an_engine_are_those_of_a_pipeline_that_have_its_size_and_length(tmp_path: Path) -> None:
    asked = {"prompt": "ball 1", "size": "48x32", "seconds": 0.375, "fps": 8}
    of_engine = {"numerics": json.dumps({"engine": "videos_api"}), "scheduler": "none"}
    pipeline = {"prompt": "ball 1", "height": 32, "width": 48, "num_frames": 3, **GUIDANCE}
    ours = output_of(tmp_path / "ours", [row(1, arguments=asked, more=of_engine)])
    theirs = output_of(tmp_path / "theirs", [row(1, arguments=pipeline, more={"scheduler": "UniPC"})])
    report = framefleet.audit(ours, against=theirs)
    assert report.total.num_equal == 1 and report.only_one_has == ("guidance_scale", "scheduler")
    assert report.kinds[0].kind == "generate 3 x 32 x 48"


def test_a_second_run_goes_on_with_the_choice_and_the_distances_of_the_first(tmp_path: Path) -> None:
    ours, theirs = (output_of(tmp_path / name, map(row, range(20))) for name in ("ours", "theirs"))
    first = framefleet.audit(ours, against=theirs, share=0.3)
    assert 0 < first.total.num_chosen < 20
    for clip in (theirs / "clips").rglob("*.mkv"):
        clip.unlink()
    assert framefleet.audit(ours, against=theirs, share=0.3) == first
    assert framefleet.audit(ours, against=theirs).total.num_compared == first.total.num_compared


def test_nothing_to_compare_with_is_said(tmp_path: Path) -> None:
    ours, theirs = output_of(tmp_path / "a", [row(1)]), output_of(tmp_path / "b", [row(2)])
    with pytest.raises(JobError, match="has no row in common with") as none:
        framefleet.audit(ours, against=theirs)
    assert "a seed in each row (not in the other output: 1, only in the other output: 1)" in none.value.fix
    off, itself = {"against": theirs, "levels": math.nan}, {"against": f"{ours}/"}
    for wrong in ({}, {"against": theirs, "again": {}}, {"against": theirs, "share": 1.5}, off, itself):
        with pytest.raises(JobError):
            framefleet.audit(ours, **wrong)  # type: ignore[arg-type]


def test_ssim_is_that_of_the_paper() -> None:
    dark, light = (np.full((1, 16, 16, 3), level, np.uint8) for level in (50, 100))
    assert distance_of(dark, dark) == NO_DISTANCE
    expected = (2 * 50 * 100 + 6.5025) / (50**2 + 100**2 + 6.5025)  # of flat frames only luminance counts
    assert distance_of(dark, light).ssim == pytest.approx(expected, abs=1e-6)
    noise, other = frames_of(1), frames_of(2)
    assert distance_of(noise, other).ssim < 0.1 < distance_of(noise, noise // 2 + 40).ssim < 1


# -- The bound --

ROWS, SHARE = 2000, 0.05


def simulated(job: int, num_off: int) -> KindDistances:
    """Return what is said of rows of three kinds, of which the first ones are off, and one kind is rare."""
    lots = Lots(salt=hashlib.md5(f"{job} {num_off}".encode()).hexdigest(), share=SHARE)
    rows = {f"{number:032x}": "rare" if number == 7 else f"kind {number % 2}" for number in range(ROWS)}
    for row_id, kind in rows.items():
        lots.add(row_id, kind)
    tally, far = DistanceTally(lots, 2.0), Distance(max_levels=3.0, psnr_db=40.0, ssim=0.9)
    for row_id, kind in rows.items():
        if lots.has(row_id, kind):
            is_off = int(row_id, 16) < num_off
            tally.add(
                row_id, kind, ComparedPair(distance=far if is_off else NO_DISTANCE, is_equal=not is_off)
            )
    assert tally.of("rare").num_chosen == 1
    return tally.of()


@pytest.mark.parametrize("num_off", (0, 7, 40, 200, 1200))
def test_the_bound_is_true_in_at_least_38_of_40_jobs(num_off: int) -> None:
    # In each job it is false with this probability at most: that few of the rows that are off are chosen.
    by_found = (Odds(lowest=SHARE).most_off(ROWS, num_off=num_found) for num_found in range(num_off + 1))
    num_too_few = sum(most < num_off for most in by_found)
    assert binom.cdf(num_too_few - 1, num_off, SHARE) <= 0.05
    reports = [simulated(job, num_off) for job in range(40)]
    assert sum(report.most_off >= num_off for report in reports) >= 38
    assert all(report.num_off <= report.most_off <= ROWS for report in reports)
    if num_off in (40, 200):  # it says something, too
        assert np.mean([report.most_off for report in reports]) < 3 * num_off + 100


@pytest.mark.parametrize("share", (0.001, 0.05, 0.5, 1.0))
def test_the_bound_is_that_of_audits_where_nothing_was_found(share: float) -> None:
    for num_rows in (1, 10, 1000, 100_000):
        odds = Odds(lowest=share, young=0)
        assert odds.most_off(num_rows, num_off=0) == odds.most_wrong([num_rows])
    assert Odds(lowest=1.0).most_off(1000, num_off=3) == 3
