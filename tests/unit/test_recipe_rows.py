"""Rows of recipes: whose arguments they give, what is filled in, and what is refused before any worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from framefleet.pipeline.errors import RecipeError, TableError
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.recipes.recipe import spec_for
from framefleet.pipeline.rows.tables.limits import check_strength
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow, InvalidRow
from framefleet.plugins.recipes.conditioning import sizes_of
from tests.configs import FLOW, write_model

FLUX = {
    "vae": {"block_out_channels": [1, 2, 3, 4]},
    "transformer": {"guidance_embeds": True},
    "scheduler": FLOW,
}


def _read(recipe: str, spec: PipelineSpec, **cells: Any) -> CheckedRow | InvalidRow:
    batch = pa.RecordBatch.from_pydict({"prompt": ["a"]} | {name: [cell] for name, cell in cells.items()})
    found = BUILT_IN[recipe]
    (row,) = plan_rows(batch.schema, spec_for(found, spec), recipe=found).rows(0, batch)
    return row


def _arguments(recipe: str, spec: PipelineSpec, **cells: Any) -> dict[str, Any]:
    row = _read(recipe, spec, **cells)
    assert isinstance(row, CheckedRow), row
    return dict(row.request.arguments)


def _told(recipe: str, spec: PipelineSpec, **cells: Any) -> tuple[str, str]:
    row = _read(recipe, spec, **cells)
    assert isinstance(row, InvalidRow), row
    return row.messages()[0]


def test_a_recipes_own_defaults_are_part_of_a_rows_identity(wan: PipelineSpec) -> None:
    arguments = _arguments("refine", wan, strength=0.4)
    assert (arguments["levels"], arguments["strength"]) == (1, 0.4)
    assert "overlap" not in _arguments("extend", wan, duration_s=2)  # depends on the length of a segment


def test_a_row_whose_length_is_asked_in_seconds_gets_the_rate(wan: PipelineSpec) -> None:
    row = _read("extend", wan, duration_s=2)
    assert isinstance(row, CheckedRow) and row.request.fps == 16.0


@pytest.mark.parametrize(
    ("recipe", "cells", "problem", "fix"),
    [
        *(
            ("refine", {"levels": levels}, f"levels is {levels}, but it must be from 1 to 4", "use 1 or 2")
            for levels in (0, 5, 9)
        ),
        *(("refine", {"strength": strength}, f"strength is {strength}, but", "") for strength in (0.0, 1.1)),
        ("refine", {"strength": 0.3, "num_inference_steps": 3}, "strength is 0.3, but with 3 steps", ""),
        ("refine", {"strength": 0.01}, "strength is 0.01, but with 50 steps", "0.02 or more"),
        ("refine", {"height": 100}, "height is 100", "96 or 112"),
        ("extend", {"duration_s": 90.0}, "duration_s is 90.0, but it must be from 1 to 60", "into rows"),
        ("extend", {"duration_s": None}, "duration_s is empty, but every row needs", "fill it in"),
        (
            "extend",
            {"duration_s": 2, "overlap": 81},
            "overlap is 81, but a segment has only 81 frames",
            "use 20",
        ),
        ("generate", {"guidance_scale": "liner(7, 3)"}, "no schedule 'liner'", "did you mean linear?"),
        ("generate", {"guidance_scale": "strong"}, "must be a finite number", "a number in digits"),
    ],
)
def test_a_row_that_a_recipe_cannot_render_is_refused(
    wan: PipelineSpec, recipe: str, cells: dict[str, Any], problem: str, fix: str
) -> None:
    typed = {name: pa.scalar(cell, pa.float64()) if cell is None else cell for name, cell in cells.items()}
    told = _told(recipe, wan, **typed)
    assert problem in told[0] and fix in told[1]


def test_a_column_that_every_row_of_a_recipe_needs_is_asked_for(wan: PipelineSpec) -> None:
    for recipe, column in (("extend", "duration_s"), ("video_to_video", "video")):
        with pytest.raises(TableError, match=f"have no '{column}'"):
            _read(recipe, wan)


def test_a_model_that_a_recipe_cannot_use_is_refused_before_its_table_is_read(wan: PipelineSpec) -> None:
    with pytest.raises(RecipeError, match="WanPipeline of this model cannot do image_to_video"):
        _read("image_to_video", wan, image="a.png")


@pytest.mark.parametrize("spelling", ["linear(7, 3)", " linear( 7.0,3 )"])
def test_a_schedule_is_spelled_in_one_way(wan: PipelineSpec, spelling: str) -> None:
    assert _arguments("generate", wan, guidance_scale=spelling)["guidance_scale"] == "linear(7.0, 3.0)"


def test_a_model_that_embeds_its_guidance_takes_a_schedule_as_true_cfg_scale(tmp_path: Path) -> None:
    flux = inspect_model(write_model(tmp_path, "FluxPipeline", FLUX))
    problem, fix = _told("generate", flux, guidance_scale="linear(7, 3)")
    assert "guidance_scale is 'linear(7, 3)', but Flux hands it to its network once" in problem
    assert "true_cfg_scale" in fix
    arguments = _arguments("generate", flux, true_cfg_scale="linear(7, 3)", negative_prompt="x")
    assert arguments["true_cfg_scale"] == "linear(7.0, 3.0)"


def test_every_level_halves_the_size_to_a_multiple_of_the_models() -> None:
    assert sizes_of(720, 1280, levels=2, multiple=16) == [
        {"height": 176, "width": 320},  # 180 lies between 176 and 192
        {"height": 352, "width": 640},
        {"height": 720, "width": 1280},
    ]


@given(st.integers(1, 100), st.integers(1, 4), st.sampled_from([8, 16, 32]))
def test_sizes_grow_from_one_multiple_or_more_to_the_whole(parts: int, levels: int, multiple: int) -> None:
    side = parts * multiple
    heights = [size["height"] for size in sizes_of(side, side, levels=levels, multiple=multiple)]
    assert len(heights) == levels + 1
    assert heights == sorted(heights) and heights[-1] == side
    assert all(height >= multiple and height % multiple == 0 for height in heights)


@given(st.integers(1, 200))
def test_the_strength_that_a_refusal_names_is_enough(steps: int) -> None:
    def problems(strength: float) -> list[Any]:
        return list(check_strength(strength, {"num_inference_steps": steps}))

    ((_, refused),) = problems(0.5 / steps)
    assert problems(float(refused.fix.split()[1])) == []
