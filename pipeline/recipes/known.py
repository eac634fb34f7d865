"""The recipes that requests may name: framefleet's, those that are given, or all that can be found."""

from __future__ import annotations

from collections.abc import Mapping

from framefleet.pipeline.errors import RecipeError
from framefleet.pipeline.recipes.recipe import BUILT_IN, Recipe, find_recipe


class KnownRecipes:
    """Recipes by name. given: all beside framefleet's own; None: any `module:function`, then imported."""

    def __init__(self, given: Mapping[str, Recipe] | None) -> None:
        self._found = dict(given or {})
        self._may_import = given is None

    def __getitem__(self, name: str) -> Recipe:
        """Raises RecipeError for a name that may not be given, or that nothing has."""
        if name not in self._found:
            if not self._may_import and name not in BUILT_IN:
                raise RecipeError(f"recipe {name!r} is not one of this renderer's", "give it as `recipes`")
            self._found[name] = find_recipe(name)
        return self._found[name]
