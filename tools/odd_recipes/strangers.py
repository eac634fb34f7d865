"""Cases written from the documentation alone, without looking at the renderer.

Every recipe gives the same frames whenever a row runs in a fresh process, so every row can be equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tools.odd_recipes.case import ALL_ODD, Case


def _cells(**columns: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the cells of each row, given those of each column."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


STRANGERS = (
    # These call the network themselves and change nothing that rows share, so they must share forwards.
    Case(
        recipe="loops:all_timesteps_at_once",
        expected="batched",
        odd=ALL_ODD,
        cells=_cells(sweeps=(1, 2, 1, 2, 1, 2)),
    ),
    Case(recipe="loops:predictions_saved", expected="batched", odd=ALL_ODD),
    Case(recipe="loops:best_of_three", expected="batched", odd=ALL_ODD),
    # Equal, unbatched: the forward runs with gradients, or with other weights, or is over before the row is.
    Case(
        recipe="loops:gradient_in_each_step",
        expected="equal",
        cells=_cells(odd=(0.0, 0.0, 0.1, 0.1, 0.2, 0.1), again=(False, False, False, True, True, False)),
    ),
    Case(recipe="loops:other_weights_for_a_forward", expected="equal"),
    Case(recipe="loops:left_early", expected="equal", cells=_cells(stop=(0, 0, 2, 2, 1, 2))),
    # Equal, batched or not: only the row's own tensors change.
    Case(recipe="loops:noise_that_lives", expected="equal"),
    Case(recipe="loops:prompt_fades", expected="equal"),
    # Equal: a copy of a network belongs to the row, and may be batched or not.
    Case(
        recipe="networks:copied",
        expected="equal",
        cells=_cells(how=("none", "none", "pickled", "control", "pipeline", "pickled")),
    ),
    # Equal, unbatched: shared networks change for the call and are restored.
    Case(recipe="networks:tuned_for_the_call", expected="equal"),
    Case(recipe="networks:perturbed_attention", expected="equal"),
    Case(recipe="networks:tiled_for_the_call", expected="equal"),
    Case(recipe="networks:dropout", expected="equal"),
    Case(recipe="networks:pruned", expected="equal"),
    Case(recipe="networks:parametrized", expected="equal"),
    Case(recipe="networks:blocks_reused", expected="equal", cells=_cells(every=(1, 1, 2, 3, 2, 3))),
    # Equal, unbatched: the process has only one of what they use. A clear failure would also be acceptable.
    Case(
        recipe="processes:event_loop",
        expected="equal",
        cells=_cells(how=("none", "none", "coroutine", "coroutine", "threads", "coroutine")),
    ),
    Case(recipe="processes:working_folder", expected="equal"),
    Case(
        recipe="processes:warnings_heard",
        expected="equal",
        cells=_cells(odd=(0.0, 0.0, 0.3, 0.3, 0.3, 0.3), repeats=(1, 30, 30, 1, 1, 30)),
    ),
    Case(recipe="processes:operations_counted", expected="equal"),
    Case(recipe="processes:classes_changed", expected="equal"),
    Case(recipe="processes:one_scheduler_for_all", expected="equal"),
    Case(
        recipe="processes:embeddings_changed",
        expected="equal",
        cells=_cells(how=("none", "none", "in place", "in place", "none", "in place")),
    ),
)
