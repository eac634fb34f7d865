"""Sizes and steps of a progressive rendering."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from framefleet.pipeline.recipes.conditioning import check_refine, check_strength, sizes_of


def test_every_level_halves_the_size_to_a_multiple_of_the_models() -> None:
    assert sizes_of(720, 1280, levels=2, multiple=16) == [
        {"height": 176, "width": 320},  # 180 lies between 176 and 192
        {"height": 352, "width": 640},
        {"height": 720, "width": 1280},
    ]


@given(st.integers(1, 100), st.integers(1, 4), st.sampled_from([8, 16, 32]))
def test_sizes_grow_from_at_least_one_multiple_to_the_full_size(
    parts: int, levels: int, multiple: int
) -> None:
    side = parts * multiple
    heights = [size["height"] for size in sizes_of(side, side, levels=levels, multiple=multiple)]
    assert len(heights) == levels + 1
    assert heights == sorted(heights) and heights[-1] == side
    assert all(height >= multiple and height % multiple == 0 for height in heights)


@pytest.mark.parametrize(
    ("own", "steps", "wrong"),
    [
        ({"levels": 1, "strength": 0.6}, 2, None),
        ({"levels": 1, "strength": 1.0}, 1, None),
        ({"levels": 0, "strength": 0.6}, 50, "levels"),
        ({"levels": 5, "strength": 0.6}, 50, "levels"),
        ({"levels": 1, "strength": 0.0}, 50, "strength"),
        ({"levels": 1, "strength": 1.1}, 50, "strength"),
        ({"levels": 1, "strength": 0.6}, 1, "strength"),
        ({"levels": 1, "strength": 0.3}, 3, "strength"),
    ],
)
def test_a_row_that_cannot_be_refined_is_refused(own: dict[str, Any], steps: int, wrong: str | None) -> None:
    found = [name for name, _ in check_refine(own, {"num_inference_steps": steps})]
    assert found == ([wrong] if wrong else [])


@given(st.integers(1, 200))
def test_the_strength_that_a_refusal_names_is_enough(steps: int) -> None:
    def problems(strength: float) -> list[Any]:
        return list(check_strength(strength, {"num_inference_steps": steps}))

    ((_, refused),) = problems(0.5 / steps)
    assert problems(float(refused.fix.split()[1])) == []
