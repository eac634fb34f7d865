"""What a row's code may change of the process around it: compared when its turn ends, and put back.

Of the modules of a user's recipe, what they keep between rows: globals, default arguments, closures, caches.
Rows that only add to what is remembered, once each, may share it: a dict of embeddings, a cached upscaler.
Whatever else changes would carry one row into the next. Plain calls begin with what was there before any row.
Not covered: files, other threads, what objects of other libraries keep, and names and modules that appear as
rows render.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import logging
import os
import random
import sys
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from framefleet.pipeline.model.network_state import Marks, marks_agree, marks_of

_COMPILERS = "torch"  # whose loggers get handlers once it compiles
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_DRAWN = (np.ndarray, torch.Generator, np.random.Generator, random.Random)
_SEQUENCES = (list, tuple, set, frozenset, deque)
_Cached: Any = type(functools.lru_cache(len))
_Spot = tuple[Any, str]  # an object, and the attribute that holds data
Remembered = dict[int, tuple[Any, Marks]]


def process_state() -> dict[str, Any]:
    """Return what differs once code has changed it, by what it is called."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    return {
        "the working folder": os.getcwd(),
        "environment variables": os.environ.copy(),
        "handlers of logs": [
            (logger.name, handler)
            for logger in loggers
            if isinstance(logger, logging.Logger) and not logger.name.startswith(_COMPILERS)
            for handler in logger.handlers
        ],
        "filters of warnings": (warnings.showwarning, [*warnings.filters]),
        "standard output": (sys.stdout, sys.stderr),
        "the path of imports": [*sys.path],
        "the running event loop": asyncio._get_running_loop(),
    }


def changed_since(before: dict[str, Any]) -> str | None:
    """Return the first that is another now."""
    now = process_state()
    return next((name for name, value in before.items() if value != now[name]), None)


@contextmanager
def kept_surroundings() -> Iterator[None]:
    """Put back the working folder, the environment and the path of imports when the block ends."""
    folder, variables, path = os.getcwd(), os.environ.copy(), [*sys.path]
    try:
        yield
    finally:
        os.chdir(folder)
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        os.environ.update({name: value for name, value in variables.items() if os.environ.get(name) != value})
        sys.path[:] = path


class ModuleState:
    """What the modules of one folder held when this was made."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """function: of one of these modules."""
        self._modules = _sibling_modules(function)
        self.names = {module.__name__ for module in self._modules}
        self._spots = list(self._found_spots())
        self._caches = [held for held in self._values() if isinstance(held, _Cached)]
        self._kept = copy.deepcopy([getattr(*spot) for spot in self._spots])

    def now(self) -> tuple[list[Marks], list[Remembered]]:
        """Return what is to be compared when a row's turn ends."""
        remembered = [{id(held): (held, marks_of(held)) for held in _results(it)} for it in self._caches]
        return [marks_of(getattr(*spot, None)) for spot in self._spots], remembered

    def changed_since(self, before: tuple[list[Marks], list[Remembered]]) -> str | None:
        """Return the first that another row would find changed, by its name."""
        marks, remembered = self.now()
        for (owner, name), then, now in zip(self._spots, before[0], marks, strict=True):
            if not _only_remembers(then, now):
                return f"{name} of {_name_of(owner)}"
        for cache, known, held in zip(self._caches, before[1], remembered, strict=True):
            if not all(marks_agree(known[key][1], held[key][1]) for key in known.keys() & held.keys()):
                return f"what {_name_of(cache)} remembers"
        return None

    @contextmanager
    def as_loaded(self) -> Iterator[None]:
        """Restore it for a while, and then go on with what was there before."""
        now = [getattr(*spot, None) for spot in self._spots]
        self.restore()
        try:
            yield
        finally:
            self._clear_caches()
            self._put(now)

    def restore(self) -> None:
        """Let modules hold what they did; models that they loaded stay."""
        self._clear_caches()
        self._put(copy.deepcopy(self._kept))

    def _put(self, values: list[Any]) -> None:
        for spot, value in zip(self._spots, values, strict=True):
            if self._is_data(getattr(*spot, None)):
                setattr(*spot, value)

    def _clear_caches(self) -> None:
        for cache in self._caches:
            if all(map(self._is_data, _results(cache))):
                cache.cache_clear()

    def _values(self) -> Iterator[Any]:
        """Yield what modules and their classes define."""
        for module in self._modules:
            for value in [*vars(module).values()]:
                yield value
                if isinstance(value, type) and value.__module__ in self.names:
                    yield from [*vars(value).values()]

    def _found_spots(self) -> Iterator[_Spot]:
        classes = [value for value in self._values() if isinstance(value, type)]
        for owner in [*self._modules, *(kind for kind in classes if kind.__module__ in self.names)]:
            for name, value in [*vars(owner).items()]:
                if not name.startswith("__") and self._is_data(value):
                    yield owner, name
        for value in self._values():
            for function in (value, getattr(value, "__func__", None), getattr(value, "__wrapped__", None)):
                if isinstance(function, types.FunctionType) and function.__module__ in self.names:
                    yield from (spot for spot in _spots_of(function) if self._is_data(getattr(*spot, None)))

    def _is_data(self, value: Any, depth: int = 4) -> bool:
        """Whether a value can be compared and copied, with all that it holds; models and files can not."""
        if isinstance(value, torch.Tensor):
            return value.is_leaf  # torch copies no others
        if isinstance(value, (*_PLAIN, *_DRAWN)):
            return True
        if not depth:
            return False
        if isinstance(value, dict):
            held = [*value.keys(), *value.values()]
        elif isinstance(value, _SEQUENCES):
            held = [*value]
        elif type(value).__module__ in self.names and hasattr(value, "__dict__"):
            held = [*vars(value).values()]
        else:
            return False
        return all(self._is_data(part, depth - 1) for part in held)


def _spots_of(function: types.FunctionType) -> Iterator[_Spot]:
    yield from ((function, name) for name in ("__defaults__", "__kwdefaults__", "__dict__"))
    yield from ((cell, "cell_contents") for cell in function.__closure__ or ())


def _sibling_modules(function: Callable[..., Any]) -> list[types.ModuleType]:
    """Return the module of a function and those of its folder, as far as they are imported."""
    module = sys.modules.get(function.__module__)
    if module is None:
        return []
    folder = _folder_of(module)
    others = [other for other in [*sys.modules.values()] if isinstance(other, types.ModuleType)]
    return [module] + [
        other
        for other in others
        if other is not module
        and folder
        and _folder_of(other) == folder
        and not other.__name__.startswith("framefleet")
    ]


def _folder_of(module: types.ModuleType) -> str | None:
    file = getattr(module, "__file__", None)
    return os.path.dirname(os.path.abspath(file)) if file else None


def _results(cache: Any) -> list[Any]:
    """Return what a cache of functools holds of results that can change."""
    held = [part for part in gc.get_referents(cache) if part is not vars(cache)]
    if cache.cache_parameters()["maxsize"] is None:
        held = [value for part in held if type(part) is dict for value in part.values()]
    fixed = (type, types.FunctionType, *_PLAIN)
    results = [part for part in held if type(part) is not object and not isinstance(part, fixed)]
    return [part for part in results if not _has_links(part)]


def _has_links(part: Any) -> bool:
    """Whether it is the table of a cache itself."""
    return isinstance(part, dict) and all(type(held).__name__ == "_lru_list_elem" for held in part.values())


def _only_remembers(before: Marks, after: Marks) -> bool:
    """Whether a value is as it was, but for what was added under a new name, or where there was nothing."""
    (one, size, parts), (other, new_size, new_parts) = before, after
    if one is None or marks_agree(before, after):
        return True
    if one is not other or not isinstance(one, type) or new_size < size:
        return False
    if issubclass(one, _SEQUENCES):
        return new_size == size and all(map(_only_remembers, parts, new_parts))
    kept = (*new_parts[: size // 2], *new_parts[new_size // 2 :][: size // 2])  # names, and then values
    return all(map(_only_remembers, parts, kept))


def _name_of(owner: Any) -> str:
    return str(getattr(owner, "__qualname__", None) or getattr(owner, "__name__", "a closure"))
