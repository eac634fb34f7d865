"""Recipes that leave things behind spoil no row of `generate`, and no wrong row is said to be equal."""

from __future__ import annotations

import pytest

from tools.odd_recipes.job import judged_job, recipes_of

LEAVES = "tools.odd_recipes.recipes.leaves"
FEW = ("class_of_the_scheduler", "weights_through_data", "collected_objects", "compiled_network")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_if_each_row_is_audited_all_are_right_in_the_end() -> None:
    judged = judged_job(LEAVES, FEW, num_generate=8, every=1)
    assert not judged["complaints"], judged
    assert all({*counts} == {"equal"} for counts in judged["counts"].values()), judged


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_no_recipe_spoils_rows_of_others() -> None:
    judged = judged_job(LEAVES, recipes_of(LEAVES))
    assert not judged["complaints"], judged
