"""Recipes: ordinary diffusers code that renders one row. The default calls the pipeline once."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import RecipeError
from framefleet.pipeline.request import Request
from framefleet.pipeline.signature import Parameter, parameters_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A named function `(pipe, request) -> frames`.

    It may have further parameters with defaults: a row gives them as it gives the pipeline's arguments.
    digest: SHA-256 of the source file it comes from; None for framefleet's own, which the version covers.
    """

    name: str
    function: Callable[..., Any]
    digest: str | None = None

    def parameters(self) -> list[Parameter]:
        """What the recipe takes beyond `(pipe, request)`."""
        return list(parameters_of(self.function))[2:]

    def render(self, pipe: Any, request: Request) -> Any:
        """Call the recipe; arguments of its own are handed to it and taken out of the request's."""
        names = [parameter.name for parameter in self.parameters()]
        own = {name: request.arguments[name] for name in names if name in request.arguments}
        rest = {name: value for name, value in request.arguments.items() if name not in own}
        return self.function(pipe, dataclasses.replace(request, arguments=rest), **own)


def generate(pipe: Any, request: Request) -> Any:
    """Call the pipeline once; return its output object, with frames as floats in [0, 1]."""
    return pipe(**request.arguments, generator=request.generator(), output_type="np")


BUILT_IN = {"generate": Recipe(name="generate", function=generate)}


def find_recipe(name: str) -> Recipe:
    """Return a built-in recipe, or import `module:function`; modules beside the working folder are found too.

    Raises RecipeError when there is none, or it does not take `(pipe, request)`.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    module_name, _, function_name = name.partition(":")
    if not function_name:
        raise RecipeError(
            f"there is no recipe {name!r}",
            f"use one of {', '.join(BUILT_IN)}, or name yours as module:function",
        )
    function: Any = getattr(_import(module_name, name), function_name, None)
    if not inspect.isfunction(inspect.unwrap(function)):
        raise RecipeError(
            f"recipe {name!r}: {module_name} has no function {function_name}", "check the spelling"
        )
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise RecipeError(
            f"recipe {name!r} does not take (pipe, request)", "give it these two parameters"
        ) from None
    return Recipe(name=name, function=function, digest=_source_digest(function))


def _import(module_name: str, name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(module_name)
    except Exception as error:  # the user's own module, which may raise anything when it is imported
        raise RecipeError(
            f"recipe {name!r}: cannot import {module_name!r}: {error}",
            "run from the folder that holds the module",
        ) from error


def _source_digest(function: Callable[..., Any]) -> str | None:
    """Digest of the whole file: the function may call others in it."""
    file = inspect.getsourcefile(inspect.unwrap(function))
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None
