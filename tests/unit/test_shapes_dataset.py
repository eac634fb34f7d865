"""Shapes: data and prompts are the same for a seed, scores count what clips show, shipped jobs are valid."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from framefleet.jobs.job.file import load_job
from framefleet.pipeline.errors import JobError, StoreConflict, StoreError
from framefleet.pipeline.outputs.media.media import decode
from framefleet.plugins.demo.prepare import MODEL, Size
from framefleet.plugins.train.job import TrainJob
from tests.outputs import write_output
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


def test_loras_stand_in_one_table_and_tables_that_cannot_be_are_refused(tmp_path: Path) -> None:
    rows = prompt_rows(num_scenes=1, languages=["en"], guidance_scales=[5.0], loras=["none", "pink:0.8"])
    assert [row["lora"] for row in rows] == ["none", "pink:0.8"] and "lora" not in prompt_rows(num_scenes=1)[
        0
    ]
    with pytest.raises(JobError, match="'fr'"):
        prompt_rows(languages=["fr"])
    with pytest.raises(JobError, match=r"\.csv"):
        shapes.prompts(str(tmp_path / "prompts.parquet"))
    shapes.prompts(str(tmp_path / "prompts.csv"), scenes=1)
    with pytest.raises(StoreConflict):
        shapes.prompts(str(tmp_path / "prompts.csv"), scenes=2)


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


def test_outputs_without_records_of_another_table_or_without_a_clip_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="is not an output"):
        evaluate(str(tmp_path / "none"))
    write_output(tmp_path / "other", [record(1)])
    with pytest.raises(JobError, match="no column 'color'"):
        evaluate(str(tmp_path / "other"))
    output_of(tmp_path / "out", prompt_rows(num_scenes=1, languages=["en"], guidance_scales=[5.0]))
    gone = next((tmp_path / "out/clips").rglob("*.mkv"))
    gone.unlink()
    with pytest.raises(StoreError, match=gone.name):
        evaluate(str(tmp_path / "out"))


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
