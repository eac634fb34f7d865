"""Refuses rows of a second set of recipes: a process that has run a user's code renders nothing else."""

from __future__ import annotations

import warnings

from framefleet.pipeline.errors import RecipeError
from framefleet.pipeline.recipes.recipe import Recipe

_FIX = "render rows of each in a process of its own, as `framefleet render` does"
_in_this_process: set[str] = set()  # users' recipes of which any renderer has taken rows


class RecipeSet:
    """What one renderer renders rows of: one of a user's recipes, or those of framefleet."""

    def __init__(self) -> None:
        self._name: str | None = None
        self.own: Recipe | None = None  # that of a user's, if it is one

    def check(self, recipe: Recipe) -> None:
        """Take a row of a recipe. Raises RecipeError where the renderer has taken rows of another set.

        Warns where another renderer of this process has run a user's recipe: it may have left something.
        """
        name = recipe.name if recipe.is_own else ""
        if name == self._name:
            return
        if self._name is not None:
            raise RecipeError(
                f"this renderer has rows of {_title(self._name)}, and renders none of {_title(name)}, "
                "as a recipe of yours may leave something behind in its process",
                _FIX,
            )
        self._name, self.own = name, recipe if name else None
        if others := sorted(_in_this_process - {name}):
            warnings.warn(
                f"rows of {_title(name)} are rendered in a process that has run {', '.join(others)}, "
                f"which may have left something behind; {_FIX}",
                stacklevel=4,
            )
        if name:
            _in_this_process.add(name)


def _title(name: str) -> str:
    return name or "framefleet's own recipes"
