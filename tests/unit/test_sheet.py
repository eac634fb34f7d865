"""Clips of an output stand side by side: in the table's order, or by what two columns say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import framefleet
from framefleet import JobError, Store
from framefleet.pipeline.outputs.media.media import decode
from framefleet.plugins.pages.sheet.choice import ClipChoice, chosen_of
from tests.commands import command
from tests.shapes_output import output_of

PROMPTS = ["a red ball 🦊", "一个黄色的星星"]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two prompts, each at three guidance scales."""
    look = {"shape": "ball", "color": "red", "background": "blue", "motion": "left", "language": "en"}
    size = {"num_frames": 9, "height": 64, "width": 64}
    rows: list[dict[str, object]] = [
        {**look, **size, "prompt": prompt, "guidance_scale": scale, "num_inference_steps": 4}
        for prompt in PROMPTS
        for scale in (7.0, 1.0, 2.5)
    ]
    folder = tmp_path_factory.mktemp("output")
    output_of(folder, rows)
    Store(str(folder)).write("job.json", json.dumps({"job": {}}).encode())
    return folder


def test_clips_stand_in_the_order_of_the_table(output: Path) -> None:
    chosen = chosen_of(Store(str(output)), ClipChoice(limit=4))
    assert [place.record["row_id"] for place in chosen.clips] == [f"{number:032x}" for number in range(4)]
    assert [(place.row, place.column) for place in chosen.clips] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert chosen.num_found == 6


def test_columns_of_records_are_the_sides_numbers_by_size(output: Path) -> None:
    scales = ["guidance_scale 1", "guidance_scale 2.5", "guidance_scale 7"]
    chosen = chosen_of(Store(str(output)), ClipChoice(rows="prompt", columns="guidance_scale"))
    assert (chosen.row_names, chosen.column_names) == (PROMPTS, scales)
    assert [(place.row, place.column) for place in chosen.clips] == [
        (r, c) for r in (0, 1) for c in (0, 1, 2)
    ]
    chosen = chosen_of(Store(str(output)), ClipChoice(rows="guidance_scale"))
    assert (chosen.row_names, chosen.column_names, len(chosen.clips)) == (scales, [], 6)


def test_clips_for_which_there_is_no_room_are_counted(output: Path, tmp_path: Path) -> None:
    for columns, limit, num_shown, num_more in (("shape", 24, 2, 4), ("guidance_scale", 3, 3, 0)):
        choice = ClipChoice(rows="prompt", columns=columns, limit=limit)
        chosen = chosen_of(Store(str(output)), choice)
        assert (len(chosen.clips), chosen.num_more, chosen.num_found) == (num_shown, num_more, 6)
    drawn = command("sheet", output, "-o", tmp_path / "a.png", "--rows", "prompt", "--limit", "3")
    assert "shown: 3 of 6 clips: the grid has more cells than --limit" in drawn.stderr


def test_an_unknown_column_is_answered_with_few_names(output: Path, tmp_path: Path) -> None:
    refused = command("sheet", output, "-o", tmp_path / "a.png", "--rows", "guidance")
    assert refused.exit_code == 2 and "did you mean 'guidance_scale'?" in refused.stderr
    assert not any(tmp_path.iterdir())
    refused = command("sheet", output, "-o", tmp_path / "a.png", "--rows", "zz")
    assert refused.stderr.count(",") < 30 and "..." in refused.stderr


def test_a_condition_chooses_records(output: Path) -> None:
    chosen = chosen_of(
        Store(str(output)), ClipChoice(where="seed >= 0 AND row_indices[1] >= 0 AND shape = 'ball'")
    )
    assert len(chosen.clips) == 6
    with pytest.raises(JobError, match="has no clip where"):
        chosen_of(Store(str(output)), ClipChoice(where="shape = 'star'"))
    with pytest.raises(JobError, match="no column"):
        chosen_of(Store(str(output)), ClipChoice(where="shap = 'star'"))


@pytest.mark.parametrize("name", ["sheet.png", "sheet.jpg", "sheet.webp"])
def test_a_sheet_is_written(output: Path, tmp_path: Path, name: str) -> None:
    command("sheet", output, "-o", tmp_path / name, "--tile", "150", exits=0)
    with Image.open(tmp_path / name) as image:
        assert image.width > 3 * 150
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["grid.mp4", "grid.mkv", "grid.webp"])
def test_a_grid_plays_all_clips_in_step(output: Path, tmp_path: Path, name: str) -> None:
    drawn = framefleet.grid(
        str(output), tmp_path / name, rows="prompt", columns="guidance_scale", tile=64, captions=["seed"]
    )
    assert drawn.num_clips == 6
    if name.endswith(".webp"):
        with Image.open(tmp_path / name) as image:
            assert image.n_frames == 9
    else:
        assert len(decode((tmp_path / name).read_bytes())) == 9


def test_a_clip_that_is_gone_leaves_its_place(
    output: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(output, moved)
    (gone := next(moved.glob("clips/00/*.mkv"))).unlink()
    steps: list[Any] = []
    drawn = framefleet.sheet(str(moved), tmp_path / "sheet.png", tile=64, on_progress=steps.append)
    assert (drawn.num_clips, steps[-1].done, steps[-1].total) == (6, 5, 6)
    assert f"{gone.name} is gone" in caplog.text


@pytest.mark.parametrize(
    ("to", "problem"),
    [("sheet.bmp", "use one of .png"), ("sheet", "use one of"), ("nowhere/sheet.png", "is not a folder")],
)
def test_what_cannot_be_written_is_told_before_anything_is_read(
    output: Path, tmp_path: Path, to: str, problem: str
) -> None:
    ended = command("sheet", output, "-o", tmp_path / to, exits=2)
    assert problem in ended.stderr
