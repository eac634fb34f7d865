"""`framefleet score`: clips that are there get scores, once, whatever state the output is in."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import framefleet
from framefleet import JobError, Store
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.layout import SCORES, clip_path
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS
from framefleet.pipeline.outputs.parts.seals import new_run
from framefleet.pipeline.outputs.stores.folder import TEMPORARY
from framefleet.plugins.scores.clip_scores import OWN_SCORES
from tests.commands import command
from tests.outputs import write_output, write_part
from tests.rows import record
from tests.small_output import frames_of, rendered


def number(frames: Frames, record: Mapping[str, Any]) -> float:
    return float(10 * record["seed"] + "abcd".index(record["tag"]) + record["guidance_scale"] / 10)


def only_even(frames: Frames, record: Mapping[str, Any]) -> float:
    if record["seed"] % 2:
        raise ValueError("odd")
    return 0.0


def named(function: str) -> str:
    return f"tests.unit.test_score:{function}"


def columns(store: Store, *names: str) -> list[dict[str, Any]]:
    return framefleet.read_records(store.url_of(""), columns=names).to_pylist()


def test_scores_stand_in_the_records_and_are_those_of_the_frames(store: Store) -> None:
    rendered(store, 5, format="mkv")
    told: list[Any] = []
    found = framefleet.score(store.url_of(""), num_threads=2, on_progress=told.append)
    assert (found.done, found.num_damaged, found.columns) == (5, 0, tuple(OWN_SCORES))
    assert (told[-1].done, told[-1].total) == (5, 5)
    for row in columns(store, "seed", *OWN_SCORES):
        frames = frames_of(row.pop("seed"))
        assert row == {name: score.function(frames, {}) for name, score in OWN_SCORES.items()}


def test_a_second_run_measures_only_what_is_new_or_was_asked_anew(store: Store) -> None:
    rendered(store, 4, format="png")  # of an image motion is null, and is known to be
    framefleet.score(store.url_of(""), ["motion"])
    assert framefleet.score(store.url_of(""), ["motion"]).done == 0
    summary = framefleet.score(store.url_of(""), ["motion", "sharpness"])
    assert (summary.done, summary.columns) == (4, ("sharpness",))
    assert framefleet.score(store.url_of(""), ["sharpness"], again=True).done == 4


def test_only_missing_cells_are_measured_and_exact_scores_stay(store: Store) -> None:
    rendered(store, 2, scores={"sharpness": [2.0, None]})  # the second one failed
    assert framefleet.score(store.url_of("")).done == 2
    first, second = columns(store, *OWN_SCORES)
    assert first["sharpness"] == 2.0 and 0 <= second["sharpness"] <= 1
    assert None not in [*first.values(), *second.values()]
    assert framefleet.score(store.url_of("")).done == 0
    framefleet.score(store.url_of(""), ["sharpness"], again=True)
    assert columns(store, "sharpness")[0]["sharpness"] <= 1


def test_duckdb_sees_the_newest_scores(store: Store) -> None:
    rendered(store, 3, scores={"sharpness": [2.0, None, 2.0]})
    framefleet.score(store.url_of(""))
    framefleet.score(store.url_of(""), ["sharpness"], where="seed = 2", again=True)
    framefleet.score(store.url_of(""), ["flicker"], again=True)  # a part without the column
    records = framefleet.read_records(store.url_of(""), "duckdb")
    rows = records.select("path, sharpness, flicker IS NULL").fetchall()
    sharpness = [row["sharpness"] for row in columns(store, "sharpness")]
    assert [row[1:] for row in rows] == [(value, False) for value in sharpness]
    assert sharpness[0] == 2.0 and None not in sharpness and sharpness[2] <= 1


def test_a_clip_that_was_rendered_again_is_measured_again(store: Store) -> None:
    first, second = rendered(store, 2, format="png")
    framefleet.score(store.url_of(""), ["sharpness", "motion"])
    was = columns(store, "sharpness")[0]
    store.write(first["path"], content := store.read(second["path"], 1 << 20))  # as after a withdrawal
    changed = {"media_sha256": sha256(content).hexdigest(), "frames_sha256": second["frames_sha256"]}
    write_part(store, "records", RECORD_FIELDS, [first | changed | {"bytes": len(content)}], new_run(2))
    assert [row["sharpness"] is None for row in columns(store, "sharpness")] == [False, True]
    found = framefleet.score(store.url_of(""), ["sharpness", "motion"])
    assert (found.done, found.num_damaged) == (1, 0)
    assert was["sharpness"] is not None
    assert None not in [row["sharpness"] for row in columns(store, "sharpness")]
    assert framefleet.score(store.url_of(""), ["sharpness", "motion"]).done == 0


def test_scores_of_an_earlier_version_are_known_of_any_clip(store: Store) -> None:
    (one,) = rendered(store, 1, format="png")
    schema = pa.schema([("row_id", pa.string()), ("motion", pa.float64())])
    write_part(store, SCORES, schema, [{"row_id": one["row_id"], "motion": None}], "r1")
    assert framefleet.score(store.url_of(""), ["motion"]).done == 0


def test_a_function_gets_every_column_and_its_failures_are_counted(store: Store) -> None:
    rendered(store, 4, carried={"tag": ["a", "b", "c", "d"]})
    found = framefleet.score(store.url_of(""), [named("number"), named("only_even")], where="seed < 3")
    assert found.done == 3
    assert [row["number"] for row in columns(store, "number")] == [0.0, 11.05, 22.1, None]
    assert (found.unscored["only_even"].num, "odd" in found.unscored["only_even"].example) == (1, True)
    assert [row["only_even"] for row in columns(store, "only_even")] == [0.0, None, 0.0, None]


def test_a_clip_that_is_not_as_committed_has_no_score_and_is_told(store: Store) -> None:
    gone, changed, torn, *_ = rendered(store, 5)
    store.delete(gone["path"])
    store.write(changed["path"], b"x" * changed["bytes"])
    store.write(torn["path"], b"x")
    found = framefleet.score(store.url_of(""), ["sharpness"])
    assert (found.done, found.num_damaged) == (2, 3)
    assert found.damage == f"{gone['path']}: it is gone"
    ended = command("score", store.url_of(""), "--scores", "sharpness", exits=1)
    assert "3 damaged clips without scores" in ended.stderr
    assert "scored in" not in ended.stderr and "nothing to do" not in ended.stderr


def test_a_clip_of_no_known_kind_is_damaged_though_its_digest_is_right(store: Store, tmp_path: Path) -> None:
    path, content = clip_path("0" * 32, ".mp4"), b"no clip"
    store.create(path, content)
    changed: dict[str, Any] = {"path": path, "uri": store.url_of(path), "bytes": len(content)}
    stored = record(0, media_sha256=sha256(content).hexdigest(), **changed)
    write_output(tmp_path / "out", [stored])
    found = framefleet.score(store.url_of(""))
    assert (found.done, found.num_damaged) == (0, 1)
    assert "are not a clip" in str(found.damage)


def test_what_an_interrupted_run_measured_is_kept(store: Store) -> None:
    rendered(store, 6)

    def interrupt(progress: Any) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        framefleet.score(store.url_of(""), ["sharpness"], on_progress=interrupt, num_threads=1)
    assert len(store.list(SCORES)) == 1
    assert framefleet.score(store.url_of(""), ["sharpness"]).done in (3, 4)


def test_what_a_killed_run_left_half_written_goes_with_the_next(store: Store) -> None:
    rendered(store, 1)
    folder = Path(store.url_of(SCORES))
    folder.mkdir()
    for name, age_s in (("old", 120), ("new", 0)):
        (file := folder / f"{TEMPORARY}{name}").write_bytes(b"half")
        os.utime(file, (time.time() - age_s,) * 2)
    framefleet.score(store.url_of(""), ["sharpness"])
    assert [file.name for file in folder.iterdir() if file.suffix != ".parquet"] == [f"{TEMPORARY}new"]


def test_the_command_says_what_it_measured_and_that_nothing_is_left(store: Store) -> None:
    rendered(store, 3)
    ended = command("score", store.url_of(""), "--scores", "motion,is_black")
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert "3 clips scored in" in ended.stderr
    assert "motion, is_black" in ended.stderr
    again = command("score", store.url_of(""), "--scores", "is_black")
    assert "nothing to do" in again.stderr and "--again measures them again" in again.stderr
    assert command("score", store.url_of(""), "--scores", "no").exit_code == 2
    ended = command("score", store.url_of(""), "--scores", "sharpness, {similarity: /nowhere}")
    assert ended.exit_code == 2 and "/nowhere is not the folder of a CLIP model" in ended.stderr


def test_a_score_that_fails_for_every_clip_was_not_measured(store: Store) -> None:
    rendered(store, 3, carried={"tag": ["e"] * 3})
    ended = command("score", store.url_of(""), "--scores", named("number"), exits=1)
    assert "the score number failed for 3 clips, e.g. row" in ended.stderr
    assert "scored in" not in ended.stderr and "nothing to do" not in ended.stderr


@pytest.mark.parametrize("cells", [["a", "b"], [0.5, 1.5]])
def test_a_score_with_the_name_of_another_column_is_refused(store: Store, cells: list[Any]) -> None:
    with pytest.raises(JobError, match="is not an output"):
        framefleet.score(store.url_of(""))
    rendered(store, 2, carried={"number": cells})
    with pytest.raises(JobError, match="have a column 'number' already"):
        framefleet.score(store.url_of(""), [named("number")])
