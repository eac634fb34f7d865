"""Datasets and tables of prompts are the same for the same seed; scores count what clips show."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from framefleet import Store
from framefleet.pipeline.errors import JobError, StoreConflict, StoreError
from framefleet.pipeline.outputs.media.media import decode
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import record_schema, values_of
from framefleet.plugins.demo.prepare import Size
from tests.rows import record
from tests.shapes_output import CARRIED, output_of
from tools.shapes import __main__ as shapes
from tools.shapes.dataset import examples_of, write_dataset
from tools.shapes.drawing import draw
from tools.shapes.evaluate import ATTRIBUTES, Settings, evaluate
from tools.shapes.prompts import prompt_rows
from tools.shapes.scenes import NEW_COLORS, NEW_SHAPES, SIZE, Scene, captions

WRONG = Scene(shape="ring", color="cyan", background="black", motion="grow")


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.*")}


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("again", 5), ("other", 6)):
        write_dataset(str(tmp_path / name), num_clips=3, seed=seed)
    assert files_in(tmp_path / "one") == files_in(tmp_path / "again") != files_in(tmp_path / "other")


def test_what_is_hard_comes_more_often(tmp_path: Path) -> None:
    shapes.dataset(str(tmp_path), clips=40, repeats=["star:4", "still:2"])
    for row in pq.read_table(tmp_path / "dataset.parquet").to_pylist():
        assert row["repeats"] == (4 if row["shape"] == "star" else 2 if row["motion"] == "still" else 1)


@pytest.mark.parametrize(
    ("repeats", "words"),
    [
        (["star"], "write it as star:4"),
        (["dog:2"], "no clip shows 'dog'"),
        (["star:0"], "use 1 to 10,000"),
        (["star:10001"], "use 1 to 10,000"),
        (["star:2", "star:3"], "star is given twice"),
        (["cross:20"], "cross is new, and no clip is"),
    ],
)
def test_repeats_that_make_no_sense_are_refused(tmp_path: Path, repeats: list[str], words: str) -> None:
    with pytest.raises(JobError, match=words):
        shapes.dataset(str(tmp_path), clips=4, repeats=repeats)


def test_the_table_names_its_clips_and_says_what_they_show(tmp_path: Path) -> None:
    table = write_dataset(str(tmp_path), num_clips=4, sizes=[Size(5, 32, 48)])
    for row in pq.read_table(table).to_pylist():
        scene = Scene(**{name: row[name] for name in CARRIED.names[:4]})
        expected = draw(scene, seed=row["seed"], num_frames=5, height=32, width=48)
        assert (decode((tmp_path / row["video"]).read_bytes()) == expected).all()
        assert row["prompt"].isascii() == (row["language"] == "en")


def test_each_clip_has_one_of_the_sizes_and_what_it_shows_does_not_depend_on_them() -> None:
    sizes = [Size(9, 32, 32), Size(9, 32, 32), Size(5, 48, 32)]
    examples = examples_of(300, sizes=sizes)
    drawn = [Size(example.num_frames, example.height, example.width) for example in examples]
    assert set(drawn) == set(sizes)
    assert 160 < drawn.count(sizes[0]) < 240  # given twice
    alike = [replace(example, num_frames=9, height=64, width=64) for example in examples]
    assert alike == examples_of(300)


@pytest.mark.parametrize(
    ("size", "fix"),
    [
        *((text, "write it as 9x64x64") for text in ("9", "9x64", "9x64x64x3", "9x-64x64", "ninex64x64")),
        *((text, "32 to 1024") for text in ("9x16x64", "9x64x9999")),
        ("0x64x64", "use 1 or more"),
    ],
)
def test_sizes_that_are_none_or_are_not_drawn_are_refused(tmp_path: Path, size: str, fix: str) -> None:
    with pytest.raises(JobError, match=fix):
        shapes.dataset(str(tmp_path / "dataset"), clips=4, sizes=["9x64x64", size])
    with pytest.raises(JobError, match=fix):
        shapes.prompts(str(tmp_path / "prompts.csv"), sizes=[size])
    assert not any(tmp_path.iterdir())


def test_clips_too_short_for_a_motion_are_not_asked_for(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"size 4x64x64: motion is not to be seen(.|\n)*use 5 frames"):
        shapes.prompts(str(tmp_path / "prompts.csv"), sizes=["4x64x64"])


def test_the_contrast_of_a_prompt_exchanges_its_colours() -> None:
    for example in examples_of(50):
        swapped = replace(example.scene, color=example.background, background=example.color)
        wordings = [captions(swapped, seed=seed).values() for seed in range(1000)]
        assert any(example.contrast in wording for wording in wordings)


def test_a_longer_dataset_of_the_same_seed_begins_alike() -> None:
    assert examples_of(50, seed=1) == examples_of(3000, seed=1)[:50]


def test_both_languages_are_prompts_about_equally_often() -> None:
    languages = [example.language for example in examples_of(1000)]
    assert 400 < languages.count("en") < 600


def test_a_complete_dataset_is_left_alone_and_another_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        shapes.dataset(str(tmp_path), clips=2)
        assert capsys.readouterr().out == f"{tmp_path}/dataset.parquet\n"
    with pytest.raises(JobError, match=r"dataset\.parquet is of another dataset"):
        shapes.dataset(str(tmp_path), clips=3)


@pytest.mark.parametrize(
    ("clips", "size"), [(0, SIZE), (1, Size(0, 64, 64)), (1, Size(9, 16, 64)), (1, Size(9, 64, 9999))]
)
def test_impossible_datasets_are_refused(clips: int, size: Size, tmp_path: Path) -> None:
    with pytest.raises(JobError):
        write_dataset(str(tmp_path), num_clips=clips, sizes=[SIZE, size])
    assert not any(tmp_path.iterdir())


def test_a_dataset_for_fine_tuning_has_as_many_new_things_as_asked_for(tmp_path: Path) -> None:
    shapes.dataset(str(tmp_path), clips=12, new_clips=5)
    rows = pq.read_table(tmp_path / "dataset.parquet").to_pylist()
    is_new = [row["shape"] in NEW_SHAPES or row["color"] in NEW_COLORS for row in rows]
    assert is_new == [False] * 7 + [True] * 5
    with pytest.raises(JobError, match="13 new ones of 12 clips"):
        shapes.dataset(str(tmp_path / "more"), clips=12, new_clips=13)


def test_prompts_ask_for_held_out_scenes_once_for_each_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prompts.csv"
    shapes.prompts(str(file), scenes=3, guidance_scales=[1, 5], steps=[8, 16])
    assert capsys.readouterr().out == f"{file}\n"
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
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


def test_rows_with_and_without_a_lora_stand_in_one_table() -> None:
    rows = prompt_rows(num_scenes=1, languages=["en"], guidance_scales=[5.0], loras=["none", "pink:0.8"])
    assert [row["lora"] for row in rows] == ["none", "pink:0.8"]
    assert "lora" not in prompt_rows(num_scenes=1)[0]


def test_tables_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="'fr'"):
        prompt_rows(languages=["fr"])
    with pytest.raises(JobError, match=r"\.csv"):
        shapes.prompts(str(tmp_path / "prompts.parquet"))
    shapes.prompts(str(tmp_path / "prompts.csv"), scenes=1)
    with pytest.raises(StoreConflict):
        shapes.prompts(str(tmp_path / "prompts.csv"), scenes=2)


def test_a_model_that_draws_what_is_asked_scores_full_marks(tmp_path: Path) -> None:
    rows = prompt_rows(num_scenes=3, languages=["en"], guidance_scales=[5.0])
    (score,) = evaluate(str(output_of(tmp_path, rows)))
    assert score.settings == Settings(
        lora="", language="en", size=SIZE, num_inference_steps=16, guidance_scale=5.0
    )
    assert (score.num_clips, score.all, score.shape) == (3, 1.0, 1.0)


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


def test_scores_are_printed_for_people_and_for_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = prompt_rows(num_scenes=1, guidance_scales=[5.0], sizes=[Size(9, 128, 128)])
    output_of(tmp_path, [row | {"lora": {"pink": {"sha256": "0", "weight": 1}}} for row in rows])
    shapes.evaluate(str(tmp_path))
    shown = capsys.readouterr().out
    assert "9x128x128" in shown
    assert "…" not in shown
    assert shown.count("100.0") == 2 * len((*ATTRIBUTES, "all"))
    shapes.evaluate(str(tmp_path), as_json=True)
    scores = json.loads(capsys.readouterr().out)
    assert [(score["language"], score["size"]) for score in scores] == [
        ("en", "9x128x128"),
        ("zh", "9x128x128"),
    ]
    assert scores[0]["guidance_scale"] == 5.0
    assert scores[0]["motion"] == 1.0


def test_outputs_without_records_or_of_another_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="has no records"):
        evaluate(str(tmp_path))
    writer = PartWriter(Store(str(tmp_path)), "records", record_schema(pa.schema([])), run="r1")
    writer.add(None, values_of(record(1)))
    writer.flush()
    with pytest.raises(JobError, match="no column 'color'"):
        evaluate(str(tmp_path))


def test_a_clip_that_is_gone_is_named(tmp_path: Path) -> None:
    output_of(tmp_path, prompt_rows(num_scenes=1, languages=["en"], guidance_scales=[5.0]))
    gone = next((tmp_path / "clips").rglob("*.mkv"))
    gone.unlink()
    with pytest.raises(StoreError, match=gone.name):
        evaluate(str(tmp_path))


def test_the_command_line_writes_a_dataset_and_prompts(tmp_path: Path) -> None:
    made = typed("dataset", tmp_path, "--clips", "2", "--size", "5x32x32")
    assert pq.read_table(made.output.strip().splitlines()[-1]).num_rows == 2
    prompts = tmp_path / "prompts.csv"
    typed("prompts", prompts, "--scenes", "1", "--guidance", "5", "--size", "17x64x64")
    assert prompts.read_text(encoding="utf-8").count("\n") == 1 + 2  # a header, and both languages


def typed(*arguments: str | Path) -> Result:
    ended = CliRunner().invoke(shapes.app, [str(argument) for argument in arguments])
    assert ended.exit_code == 0, ended.output
    return ended
