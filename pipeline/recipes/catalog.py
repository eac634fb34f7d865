"""Recipes by name: `generate`, those of plugins, and functions of the person who runs the job."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from framefleet.pipeline.errors import RecipeError, shown
from framefleet.pipeline.guards.mistakes import did_you_mean, either
from framefleet.pipeline.guards.named_function import named_function, source_digest
from framefleet.pipeline.plugin import values_of_plugins
from framefleet.pipeline.recipes.recipe import BATCHED, Recipe, recipe_from
from framefleet.pipeline.request import Request

log = logging.getLogger(__name__)


def generate(pipe: Any, request: Request) -> Any:
    """Call the pipeline once; return its output object, with frames as floats in [0, 1].

    What it draws without the generator comes from the global ones of torch, NumPy and Python, which have the
    row's seed: the frames are those of a script that seeds these three before the call.
    """
    return pipe(**request.arguments, generator=request.generator(), output_type="np")


def _by_name() -> dict[str, Recipe]:
    """Return `generate` and plugins' recipes. Those of other packages are treated like a user's functions."""
    by_name = {"generate": recipe_from(generate)}
    for recipe in values_of_plugins("recipes"):
        own = recipe
        if not recipe.function.__module__.startswith("framefleet."):
            try:
                checked = _recipe_of(recipe.name, recipe.function)
            except RecipeError as error:
                log.warning("a plugin's recipe is not used: %s", error)
                continue
            own = replace(recipe, digest=checked.digest, is_batched=checked.is_batched)
        if by_name.setdefault(recipe.name, own) is not own:
            log.warning("a plugin's recipe %r is not used: another one has this name", recipe.name)
    return by_name


def is_of_user(name: str) -> bool:
    """Whether a recipe's code is not framefleet's: `module:function`, or a recipe of another package."""
    return ":" in name or (name in BUILT_IN and BUILT_IN[name].is_own)


def find_recipe(name: str, folder: str | None = None) -> Recipe:
    """Return a built-in recipe, or import `module:function`.

    folder: where its module may be, e.g. that of the job file; it may also be in the current folder. Only for
    names from the person who runs the job: importing a module runs it. Raises RecipeError if there is none,
    or it does not take `(pipe, request)`.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    if not name.partition(":")[2]:
        fix = either(did_you_mean(name, BUILT_IN), "name yours as module:function")
        raise RecipeError(f"there is no recipe {name!r}", fix)
    return _recipe_of(name, named_function(name, folder=folder))


def recipe_of_row(name: str, own: Recipe) -> Recipe:
    """Return the recipe that a row names: framefleet's, or one in the module of the job's own recipe.

    A table is not trusted: nothing is imported, and functions that the module itself imported do not count.
    Raises RecipeError for every other name.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    if name == own.name:
        return own
    of_job, colon, _ = own.name.partition(":")
    module_name, _, function_name = name.partition(":")
    if not colon or module_name != of_job:
        own_module = f"{of_job}:FUNCTION" if colon else "set the job's `recipe` to MODULE:FUNCTION first"
        raise RecipeError(
            f"recipe {shown(name)} is not in a module that the job names",
            f"use one of {', '.join(sorted(BUILT_IN))}, or {own_module}",
        )
    module = sys.modules.get(of_job)
    names = vars(module) if module else {}  # not getattr, for which a module may run its own code
    function: Any = names.get(function_name)
    is_public = inspect.isfunction(function) and not function_name.startswith("_")
    if not is_public or inspect.unwrap(function).__globals__ is not names:
        raise RecipeError(
            f"recipe {shown(name)}: {of_job} defines no such public function",
            "check the spelling; what it only imports is not meant for rows",
        )
    return _recipe_of(name, function)


def _recipe_of(name: str, function: Callable[..., Any]) -> Recipe:
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise RecipeError(
            f"recipe {name!r} takes {inspect.signature(function)}, not (pipe, request)",
            "give it these two parameters, and a default to every other one",
        ) from None
    digest, is_batched = source_digest(function), getattr(function, BATCHED, False)
    return Recipe(name=name, function=function, digest=digest, is_batched=is_batched)


BUILT_IN = _by_name()


class KnownRecipes(dict[str, Recipe]):
    """Recipes by name. Raises RecipeError for an unknown name, or one that is not allowed."""

    def __init__(self, own: Mapping[str, Recipe] | None) -> None:
        """own: all besides framefleet's; None: any `module:function`, imported on first use."""
        super().__init__(own or {})
        self._may_import = own is None

    def __missing__(self, name: str) -> Recipe:
        if not self._may_import and name not in BUILT_IN:
            raise RecipeError(f"recipe {name!r} is not one of this renderer's", "give it as `recipes`")
        return self.setdefault(name, find_recipe(name))
