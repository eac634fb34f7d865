"""Shapes: scenes are drawn and measured, data and prompts follow a seed, and shipped jobs are valid."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from framefleet.api.clips import Frames, decode
from framefleet.jobs.job.file import load_job
from framefleet.pipeline.errors import JobError
from framefleet.plugins.demo.prepare import MAX_TOKENS, MODEL, Size
from framefleet.plugins.demo.vocabulary import COLORS, MOTIONS, SHAPES
from framefleet.plugins.train.job import TrainJob
from tests.shapes_output import CARRIED, output_of
from tools.shapes import __main__ as shapes
from tools.shapes.dataset import examples_of, write_dataset
from tools.shapes.drawing import OUTLINES, PALETTE, draw, track_of
from tools.shapes.evaluate import ATTRIBUTES, Settings, evaluate
from tools.shapes.measure import Measured, measure
from tools.shapes.prompts import prompt_rows
from tools.shapes.scenes import (
    LANGUAGES,
    NEW_COLORS,
    NEW_SHAPES,
    SIZE,
    Scene,
    all_scenes,
    captions,
    held_out_scenes,
    new_scenes,
    training_scenes,
)

WRONG = Scene(shape="ring", color="cyan", background="black", motion="grow")


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.*")}


def test_the_same_seed_writes_the_same_bytes_and_the_table_says_what_its_clips_show(tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("again", 5), ("other", 6)):
        table = write_dataset(str(tmp_path / name), num_clips=3, seed=seed, sizes=[Size(5, 32, 48)])
    assert files_in(tmp_path / "one") == files_in(tmp_path / "again") != files_in(tmp_path / "other")
    for row in pq.read_table(table).to_pylist():
        scene = Scene(**{name: row[name] for name in CARRIED.names[:4]})
        expected = draw(scene, seed=row["seed"], num_frames=5, height=32, width=48)
        assert (decode((tmp_path / "other" / row["video"]).read_bytes()) == expected).all()
        assert row["prompt"].isascii() == (row["language"] == "en")


def test_each_clip_has_one_of_the_sizes_and_what_it_shows_does_not_depend_on_them() -> None:
    sizes = [Size(9, 32, 32), Size(9, 32, 32), Size(5, 48, 32)]
    examples = examples_of(300, sizes=sizes)
    drawn = [Size(example.num_frames, example.height, example.width) for example in examples]
    assert set(drawn) == set(sizes)
    assert 160 < drawn.count(sizes[0]) < 240  # given twice
    assert 120 < [example.language for example in examples].count("en") < 180
    assert examples[:50] == examples_of(50, sizes=sizes), "more of them begin alike"
    alike = [replace(example, num_frames=9, height=64, width=64) for example in examples]
    assert alike == examples_of(300)


@pytest.mark.parametrize(
    ("option", "values", "words"),
    [
        ("repeats", ["star"], "write it as star:4"),
        ("repeats", ["dog:2"], "no clip shows 'dog'"),
        *(("repeats", [f"star:{times}"], "use 1 to 10,000") for times in (0, 10001)),
        ("repeats", ["star:2", "star:3"], "star is given twice"),
        ("repeats", ["cross:20"], "cross is new, and no clip is"),
        *(("sizes", [text], "write it as 9x64x64") for text in ("9", "9x64x64x3", "9x-64x64", "ninex64x64")),
        *(("sizes", ["9x64x64", text], "32 to 1024") for text in ("9x16x64", "9x64x9999")),
        ("sizes", ["0x64x64"], "use 1 or more"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, option: str, values: list[str], words: str
) -> None:
    with pytest.raises(JobError, match=words):
        shapes.dataset(str(tmp_path / "dataset"), clips=4, **{option: values})
    with pytest.raises(JobError, match=r"size 4x64x64: motion is not to be seen(.|\n)*use 5 frames"):
        shapes.prompts(str(tmp_path / "prompts.csv"), sizes=["4x64x64"])
    assert not any(tmp_path.iterdir())


def test_the_contrast_of_a_prompt_exchanges_its_colours() -> None:
    for example in examples_of(50):
        swapped = replace(example.scene, color=example.background, background=example.color)
        wordings = [captions(swapped, seed=seed).values() for seed in range(1000)]
        assert any(example.contrast in wording for wording in wordings)


def test_a_complete_dataset_is_left_alone_and_another_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        shapes.dataset(str(tmp_path), clips=2)
        assert capsys.readouterr().out == f"{tmp_path}/dataset.parquet\n"
    with pytest.raises(JobError, match=r"dataset\.parquet is of another dataset"):
        shapes.dataset(str(tmp_path), clips=3)


def test_a_dataset_for_fine_tuning_has_as_many_new_things_as_asked_for(tmp_path: Path) -> None:
    shapes.dataset(str(tmp_path), clips=40, new_clips=5, repeats=["star:4", "still:2"])
    rows = pq.read_table(tmp_path / "dataset.parquet").to_pylist()
    is_new = [row["shape"] in NEW_SHAPES or row["color"] in NEW_COLORS for row in rows]
    assert is_new == [False] * 35 + [True] * 5
    for row in rows:  # what is hard comes more often
        assert row["repeats"] == (4 if row["shape"] == "star" else 2 if row["motion"] == "still" else 1)
    with pytest.raises(JobError, match="13 new ones of 12 clips"):
        shapes.dataset(str(tmp_path / "more"), clips=12, new_clips=13)


def test_the_command_line_writes_a_dataset_and_held_out_prompts_once_for_each_setting(tmp_path: Path) -> None:
    def typed(*arguments: str | Path) -> str:
        ended = CliRunner().invoke(shapes.app, [str(argument) for argument in arguments])
        assert ended.exit_code == 0, ended.output
        return ended.output.strip().splitlines()[-1]

    assert pq.read_table(typed("dataset", tmp_path, "--clips", "2", "--size", "5x32x32")).num_rows == 2
    options = ("--scenes", "3", "--guidance", "1", "--guidance", "5", "--steps", "8", "--steps", "16")
    file = typed("prompts", tmp_path / "prompts.csv", *options)
    rows = list(csv.DictReader(Path(file).read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 3 * 2 * 2 * 2
    assert len({row["seed"] for row in rows}) == 3
    assert len({row["prompt"] for row in rows}) == 6
    assert all(Scene(**{name: row[name] for name in CARRIED.names[:4]}).held_out for row in rows)


def test_prompts_ask_for_sizes_and_scores_are_by_them(tmp_path: Path) -> None:
    file, sizes = tmp_path / "prompts.csv", ("9x64x64", "17x32x48")
    shapes.prompts(str(file), scenes=2, languages=["en"], guidance_scales=[5], sizes=sizes)
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    assert [(row["num_frames"], row["height"], row["width"]) for row in rows] == [
        ("9", "64", "64"),
        ("17", "32", "48"),
    ] * 2
    found = evaluate(str(output_of(tmp_path / "out", [dict(row) for row in rows])))
    assert [(str(score.settings.size), score.num_clips) for score in found] == [(size, 2) for size in sizes]


def test_loras_stand_in_one_table() -> None:
    rows = prompt_rows(num_scenes=1, languages=["en"], guidance_scales=[5.0], loras=["none", "pink:0.8"])
    assert [row["lora"] for row in rows] == ["none", "pink:0.8"] and "lora" not in prompt_rows(num_scenes=1)[
        0
    ]


def test_scores_are_shares_by_language_guidance_steps_and_lora(tmp_path: Path) -> None:
    rows = prompt_rows(num_scenes=2, guidance_scales=[1.0, 5.0])
    asked = [Scene(**{name: row[name] for name in CARRIED.names[:4]}) for row in rows]
    shown = [scene if row["guidance_scale"] == 5 else WRONG for scene, row in zip(asked, rows, strict=True)]
    rows[-1] |= {"lora": {"pink": {"sha256": "0", "weight": 0.5}}}
    scores = evaluate(str(output_of(tmp_path, rows, shown=shown)) + "/records")
    found = [(s.settings.lora, s.settings.language, s.settings.guidance_scale, s.num_clips) for s in scores]
    assert found == [
        ("", "en", 1, 2),
        ("", "en", 5, 2),
        ("", "zh", 1, 2),
        ("", "zh", 5, 1),
        ("pink:0.5", "zh", 5, 1),
    ]
    assert [score.all for score in scores] == [0, 1, 0, 1, 1]
    assert scores[0].settings == Settings(
        lora="", language="en", size=SIZE, num_inference_steps=16, guidance_scale=1.0
    )


def test_scores_are_printed_for_people_and_for_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = prompt_rows(num_scenes=1, guidance_scales=[5.0], sizes=[Size(9, 128, 128)])
    output_of(tmp_path, [row | {"lora": {"pink": {"sha256": "0", "weight": 1}}} for row in rows])
    shapes.evaluate(str(tmp_path))
    shown = capsys.readouterr().out
    assert "9x128x128" in shown and "…" not in shown
    assert shown.count("100.0") == 2 * len((*ATTRIBUTES, "all"))
    shapes.evaluate(str(tmp_path), as_json=True)
    of_english, of_chinese = json.loads(capsys.readouterr().out)
    assert (of_english["language"], of_chinese["size"], of_english["motion"]) == ("en", "9x128x128", 1.0)


FILES = sorted((MODEL.parent / "train").glob("*.yaml"))
BLANK = "shapes/blank"


def job_of(file: Path) -> TrainJob:
    return load_job(file, [], kind=TrainJob)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_job_is_valid_and_writes_under_its_own_name(file: Path) -> None:
    assert job_of(file).output.endswith(f"shapes/{file.stem}")


def test_the_jobs_are_one_tree_that_grows_from_the_blank_model() -> None:
    jobs = {f"shapes/{file.stem}": job_of(file) for file in FILES}
    for name in jobs:
        begun = set[str]()
        while (path := jobs[name].model.path) != BLANK:
            assert name not in begun
            begun.add(name)
            name = path.removesuffix("/model")


def scene(shape: str = "ball", color: str = "red", background: str = "blue", motion: str = "still") -> Scene:
    return Scene(shape=shape, color=color, background=background, motion=motion)


# Few clips, but with every value in them, new ones too.
SHOWN = [*training_scenes(40, seed=3), *training_scenes(16, seed=3, among=new_scenes())]


def test_a_tenth_of_all_combinations_is_held_out_and_never_dealt_for_training() -> None:
    held_out = [scene for scene in all_scenes() if scene.held_out]
    assert 200 <= len(held_out) <= 240
    assert not set(held_out) & set(training_scenes(5000, seed=0))
    dealt = held_out_scenes(200, seed=1)
    assert len(set(dealt)) == 200 and set(dealt) <= set(held_out)
    assert dealt == held_out_scenes(200, seed=1) != held_out_scenes(200, seed=2)


def test_every_pair_of_values_is_left_for_training() -> None:
    def pairs(scenes: list[Scene]) -> set[tuple[str, str, str, str]]:
        return {
            (one, getattr(scene, one), other, getattr(scene, other))
            for scene in scenes
            for one, other in combinations(ATTRIBUTES, 2)
        }

    assert pairs([scene for scene in all_scenes() if not scene.held_out]) == pairs(all_scenes())


def test_new_scenes_have_the_new_shape_or_the_new_colour_and_all_values_can_be_drawn() -> None:
    assert all(scene.shape in NEW_SHAPES or scene.color in NEW_COLORS for scene in new_scenes())
    assert {scene.background for scene in new_scenes()} == set(COLORS)
    assert not {*NEW_SHAPES, *NEW_COLORS} & {value for s in all_scenes() for value in (s.shape, s.color)}
    for name, drawn, values in (
        ("shape", OUTLINES, {*SHAPES, *NEW_SHAPES}),
        ("color", PALETTE, {*COLORS, *NEW_COLORS}),
        ("background", PALETTE, COLORS),
        ("motion", MOTIONS, MOTIONS),
    ):
        assert {getattr(shown, name) for shown in SHOWN} == set(values) <= set(drawn)


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("width", [1.0, 1.5])
def test_no_object_ever_reaches_the_edge(motion: str, width: float) -> None:
    for seed in range(50):
        track = track_of(motion, seed=seed, num_frames=9, width=width)
        for place, length in ((track.x, width), (track.y, 1.0)):
            assert (place - track.radius).min() > 0.02
            assert (place + track.radius).max() < length - 0.02


def test_equal_seeds_draw_equal_frames_also_longer_and_larger() -> None:
    small, again, other = (draw(scene(motion="left"), seed=seed) for seed in (1, 1, 2))
    assert small.shape == (9, 64, 64, 3)
    assert np.array_equal(small, again) and not np.array_equal(small, other)
    large = draw(scene(motion="left"), seed=1, num_frames=17, height=128, width=128)[::2]
    halved = large.reshape(9, 64, 2, 64, 2, 3).mean(axis=(2, 4))
    assert np.abs(halved - small).mean() < 1


def test_captions_name_what_is_shown_within_63_bytes_and_none_is_of_two_scenes() -> None:
    owners: dict[str, Scene] = {}
    for number, shown in enumerate((*all_scenes(), *new_scenes())):
        for seed in (number, number + 1):
            said = captions(shown, seed=seed)
            assert tuple(said) == LANGUAGES
            assert f"{shown.color} " in said["en"].lower() and f" {shown.background}" in said["en"]
            for text in said.values():
                assert len(text.encode()) < MAX_TOKENS and owners.setdefault(text, shown) == shown


@pytest.mark.parametrize("size", [(9, 64, 64), (5, 64, 96), (17, 96, 96), (9, 64, 256), (9, 128, 64)])
def test_drawn_clips_measure_as_what_was_drawn(size: tuple[int, int, int]) -> None:
    num_frames, height, width = size
    for seed, shown in enumerate(SHOWN if size == (9, 64, 64) else SHOWN[::8]):
        frames = draw(shown, seed=seed, num_frames=num_frames, height=height, width=width)
        assert measure(frames) == Measured(
            shape=shown.shape, color=shown.color, background=shown.background, motion=shown.motion
        )


BARE = np.full((9, 64, 64, 3), PALETTE["blue"], np.uint8)
BALL = draw(scene(), seed=1)


def of_grey() -> Frames:
    grey = BARE.copy()
    grey[:, 28:36, 8:56] = (128, 128, 128)
    return grey


def vanishing() -> Frames:
    frames = BALL.copy()
    frames[5] = PALETTE["blue"]
    return frames


def changing() -> Frames:
    frames = draw(scene("square"), seed=1)
    frames[1::2] = BALL[1::2]
    return frames


@pytest.mark.parametrize(
    ("frames", "shape", "color", "background", "motion"),
    [
        (BARE, None, None, "blue", None),
        (np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), np.uint8), *[None] * 4),
        (np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[:, None], BARE.shape), *[None] * 4),
        (of_grey(), None, None, "blue", "still"),
        (np.concatenate([BALL, BALL[:, :, ::-1]], axis=2), None, "red", "blue", "still"),
        (vanishing(), None, None, "blue", None),
        (changing(), None, "red", "blue", "still"),
        (draw(scene("star"), seed=1)[:1], "star", "red", "blue", None),
    ],
)
def test_what_is_not_clearly_there_is_not_seen(
    frames: Frames, shape: Any, color: Any, background: Any, motion: Any
) -> None:
    seen = measure(frames)
    assert seen == Measured(shape=shape, color=color, background=background, motion=motion)


def test_a_second_colour_is_no_colour() -> None:
    later, beside = draw(scene(), seed=1), draw(scene(), seed=1)
    later[5:] = draw(scene(color="yellow"), seed=1)[5:]
    columns = np.flatnonzero((beside[0] != PALETTE["blue"]).any(axis=(0, 2)))
    half = int(columns.mean())
    beside[:, :, half:] = draw(scene(color="green"), seed=1)[:, :, half:]
    two = np.concatenate([draw(scene(), seed=1), draw(scene(color="yellow"), seed=2)], axis=2)
    assert [measure(frames).color for frames in (later, beside, two)] == [None] * 3


def test_an_object_that_jumps_or_slants_has_no_motion() -> None:
    leaping = np.roll(draw(scene(), seed=1), -10, axis=2)
    leaping[4:] = np.roll(leaping[4:], 15, axis=2)
    jumping = np.stack([draw(scene(), seed=seed)[0] for seed in range(9)])
    slanting = np.full((9, 64, 64, 3), PALETTE["blue"], np.uint8)
    for index in range(9):
        slanting[index, 5 + 3 * index :, 5 + 3 * index :][:20, :20] = PALETTE["red"]
    assert [measure(frames).motion for frames in (leaping, jumping, slanting)] == [None] * 3
