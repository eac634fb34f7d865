"""A case: an odd recipe, its rows, the `generate` rows mixed with them, and the outcome we expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from framefleet.pipeline.request import Request
from tests.tiny import SMALLEST

# What we expect of the rows that do the odd thing:
# batched    equal to plain calls, and at least one shared a forward
# unbatched  equal to plain calls, and none shared a forward
# equal      equal to plain calls, batched or not
# refused    each fails, and the error contains `reason`
# fails      some fail, as they do in a script; the others are equal
# invalid    the renderer refuses the table before it renders a row, and the error contains `reason`
Expected = Literal["batched", "unbatched", "equal", "refused", "fails", "invalid"]

RECIPES = "tools.odd_recipes.recipes"
PROMPTS = ("a red ball", "a blue cube", "一只猫")  # shared by all rows, so that a poisoned text cache shows
STEPS = (3, 2, 3, 4, 2, 3)
GUIDANCE = (4.0, 7.5, 4.0, 1.0, 3.0, 6.0)
ODD = (0.0, 0.0, 0.3, 0.6, 0.3, -0.4)  # the first two rows are harmless: they say nothing about the others
ALL_ODD = (0.3, 0.6, 0.3, 0.5, 0.6, -0.4)
GENERATE_LORAS = (None, "style", None)  # of the `generate` rows, in jobs with LoRAs
FIRST_GENERATE = 100  # the first seed of `generate` rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One odd recipe and the expected outcome.

    recipe: `module:function` in the folder `recipes`, or `generate` when only its arguments are odd.
    name: replaces the recipe's name in tables. odd: how odd each row is, given to the recipe as a column
    unless `cells` has the columns. loras: the cell `lora` of each row; empty for a job without LoRAs.
    reason: see `Expected`. is_invisible: the odd thing changes no frames of plain calls. leaves: it leaves
    something behind, so that odd rows after the first may be wrong, but are never said to be equal.
    """

    recipe: str
    expected: Expected
    reason: str = ""
    name: str = ""
    model: str = "sd"
    odd: Sequence[float] = ODD
    loras: Sequence[str | None] = ()
    cells: Sequence[Mapping[str, Any]] = ()
    keeps_embeddings: bool = False
    is_invisible: bool = False
    leaves: bool = False

    def __str__(self) -> str:
        return self.name or self.recipe.replace(":", ".")

    def odd_rows(self) -> list[Request]:
        """Return six rows of the recipe; prompt, steps, guidance, seed and oddness differ."""
        recipe = self.recipe if self.recipe == "generate" else f"{RECIPES}.{self.recipe}"
        return [
            Request(
                arguments=_arguments(self.model, seed)
                | ({"lora": self.loras[seed]} if self.loras and self.loras[seed] else {})
                | (dict(self.cells[seed]) if self.cells else {"odd": odd}),
                seed=seed,
                recipe=recipe,
            )
            for seed, odd in enumerate(self.odd)
        ]

    def generate_rows(self, first_seed: int) -> list[Request]:
        """Return three rows of `generate`; in a job with LoRAs, one of them uses one."""
        return [
            Request(
                arguments=_arguments(self.model, number) | ({"lora": lora} if self.loras and lora else {}),
                seed=first_seed + number,
            )
            for number, lora in enumerate(GENERATE_LORAS)
        ]


def _arguments(model: str, number: int) -> dict[str, Any]:
    return {
        **SMALLEST[model],
        "prompt": PROMPTS[number % len(PROMPTS)],
        "num_inference_steps": STEPS[number],
        "guidance_scale": GUIDANCE[number],
    }
