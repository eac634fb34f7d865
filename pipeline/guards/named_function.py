"""From `module:function` in a job to the function, and to the digest of its source."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path, PurePath
from typing import Any

from framefleet.pipeline.errors import RecipeError


def named_function(name: str, kind: str = "recipe", *, folder: str | None = None) -> Callable[..., Any]:
    """Import `module:function`; modules in the working folder are found too. Raises RecipeError.

    Only for names from people who run the job, because importing a module runs it. kind: what messages call
    the function. folder: searched first for its module.
    """
    module_name, _, function_name = name.partition(":")
    function: Any = getattr(_imported(module_name, name, kind, folder), function_name, None)
    if not inspect.isfunction(inspect.unwrap(function)):
        raise RecipeError(
            f"{kind} {name!r}: {module_name} has no function {function_name}", "check the spelling"
        )
    if not _source_file(function).is_file():
        raise RecipeError(
            f"{kind} {name!r}: {module_name} has no source file", "use a function from your own module"
        )
    return function


def source_digest(function: Callable[..., Any]) -> str:
    """Return the SHA-256 of its whole file, because the function may call others in it."""
    return hashlib.sha256(_source_file(function).read_bytes()).hexdigest()


def _source_file(function: Callable[..., Any]) -> Path:
    """Return its source file; for a module that is frozen into Python, e.g. "<frozen posixpath>"."""
    return Path(inspect.getsourcefile(inspect.unwrap(function)) or "<none>")


_HERE = "run from the folder of the module"


def _imported(module_name: str, name: str, kind: str, folder: str | None) -> Any:
    here = str(Path.cwd())
    sys.path += [path for path in (folder, here) if path and path not in sys.path]
    try:
        if folder:
            _import_from(folder, module_name.partition(".")[0])
        return importlib.import_module(module_name)
    except RecipeError:
        raise
    except Exception as error:  # the user's own module, which may raise anything when it is imported
        fix = f"put the module next to the job file, in {folder}" if folder else _HERE
        if module_name.endswith(".py"):
            fix = f"write {PurePath(module_name).stem}:{name.partition(':')[2]}, without .py"
        raise RecipeError(f"{kind} {name!r}: cannot import {module_name!r}: {error}", fix) from error


def _import_from(folder: str, top: str) -> None:
    """Import a module or package from this folder, even if Python would find another one first."""
    spec = PathFinder.find_spec(top, [folder])
    if spec is None or spec.loader is None or spec.origin is None:
        return
    if top not in sys.modules:
        module = module_from_spec(spec)
        sys.modules[top] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[top]
            raise
    elif (other := getattr(sys.modules[top], "__file__", None)) and not os.path.samefile(other, spec.origin):
        raise RecipeError(
            f"the module {top!r} in {folder} cannot be imported: this process already imported {other}",
            "rename one of them, or render in another process",
        )
