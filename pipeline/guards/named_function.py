"""From `module:function`, as those who run a job write it, to the function, and to what it is made of."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import RecipeError


def named_function(name: str, kind: str = "recipe") -> Callable[..., Any]:
    """Import `module:function`; modules in the working folder are found too.

    Only for names of those who run the job: importing a module runs it. kind: what it is, for messages.
    Raises RecipeError when there is none.
    """
    module_name, _, function_name = name.partition(":")
    function: Any = getattr(_imported(module_name, name, kind), function_name, None)
    if not inspect.isfunction(inspect.unwrap(function)):
        raise RecipeError(
            f"{kind} {name!r}: {module_name} has no function {function_name}", "check the spelling"
        )
    if not _source_file(function).is_file():
        raise RecipeError(
            f"{kind} {name!r}: {module_name} has no source file", "name a function of a module of your own"
        )
    return function  # type: ignore[no-any-return]


def source_digest(function: Callable[..., Any]) -> str:
    """Return the SHA-256 of the whole file, as the function may call others in it."""
    return hashlib.sha256(_source_file(function).read_bytes()).hexdigest()


def _source_file(function: Callable[..., Any]) -> Path:
    """Return where its source is; a module that is frozen into Python names "<frozen posixpath>" or so."""
    return Path(inspect.getsourcefile(inspect.unwrap(function)) or "<none>")


def _imported(module_name: str, name: str, kind: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(module_name)
    except Exception as error:  # the user's own module, which may raise anything when it is imported
        raise RecipeError(
            f"{kind} {name!r}: cannot import {module_name!r}: {error}",
            "run from the folder that holds the module",
        ) from error
