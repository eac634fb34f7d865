"""The functions and classes that a model's code consists of: a replaced one is found, and put back.

Of the classes of a model's parts, and of the Python modules that define these. Names that appear are no
change of a module, which may be imported piece by piece; of a class they are, as they hide what it inherits.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch.nn import functional

_FOREIGN = ("builtins", "abc", "typing", "collections", "collections.abc", "enum", "types", "functools")
_CODE = (classmethod, staticmethod, property, functools.cached_property)


class CodeMarks:
    """The code of some classes, as it was when this was made."""

    def __init__(self, classes: Iterable[type]) -> None:
        kinds = {base for one in classes for base in one.__mro__ if base.__module__ not in _FOREIGN}
        names = sorted({kind.__module__ for kind in kinds})
        modules = {sys.modules[name] for name in names if name in sys.modules} | {torch, functional}
        owners: list[Any] = [*sorted(kinds, key=repr), *sorted(modules, key=repr)]
        self._spaces = [_Namespace(owner) for owner in owners]

    def differences(self) -> Iterator[str]:
        """Yield the names of what was replaced, as `DDIMScheduler.step`."""
        for space in self._spaces:
            if space.has_moved():
                yield from (f"{space.name}.{name}" for name in space.replaced())

    def restore(self) -> None:
        for space in self._spaces:
            space.restore()


class _Namespace:
    """A class or a module, and the code that its names stand for."""

    def __init__(self, owner: Any) -> None:
        self.name = getattr(owner, "__qualname__", owner.__name__)
        self._owner, self._is_open = owner, isinstance(owner, ModuleType)
        self._code = {name: value for name, value in vars(owner).items() if _is_code(value)}
        self._values = [*vars(owner).values()]

    def has_moved(self) -> bool:
        """Whether anything at all differs, which is seen fast; what does may be no code."""
        now = [*vars(self._owner).values()]
        try:
            is_same = now == self._values  # compares by identity first
        except Exception:  # whatever comparing two values raises, as of tensors
            is_same = False
        return not is_same and not self._is_settled(now)

    def replaced(self) -> list[str]:
        now = vars(self._owner)
        gone = [
            name
            for name, value in self._code.items()
            if now.get(name) is not value and not _is_compilers(now.get(name))
        ]
        return gone + ([] if self._is_open else [name for name in now if self._is_new(name)])

    def restore(self) -> None:
        for name in self.replaced():
            if name in self._code:
                setattr(self._owner, name, self._code[name])
            else:
                delattr(self._owner, name)

    def _is_settled(self, now: list[Any]) -> bool:
        """Note what the names stand for now, where none of the code is another."""
        if self.replaced():
            return False
        self._values = now
        return True

    def _is_new(self, name: str) -> bool:
        return name not in self._code and _is_code(vars(self._owner)[name])


def _is_compilers(value: Any) -> bool:
    """Whether it is of torch's compiler, which wraps methods of modules when it is first used (2.13)."""
    return str(getattr(value, "__module__", "")).startswith("torch._dynamo")


def _is_code(value: Any) -> bool:
    return callable(value) or isinstance(value, _CODE)
