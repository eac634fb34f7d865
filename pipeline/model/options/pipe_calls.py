"""Calls of diffusers as values: a worker makes them, and a replay script contains them as text."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DIFFUSERS = "diffusers"  # scripts import names from it, and write all other modules in full


class Code(str):
    """An argument that a script contains unquoted, as code."""

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class New:
    """An object to be made from a class of a package."""

    module: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> Any:
        return getattr(importlib.import_module(self.module), self.name)(**_made(self.arguments))

    def __repr__(self) -> str:
        prefix = "" if self.module == DIFFUSERS else f"{self.module}."
        return f"{prefix}{self.name}({keywords(self.arguments)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class PipeCall:
    """`pipe.component.method(**arguments)`; with a module, `method(pipe.component, **arguments)`."""

    component: str = ""  # "" is the pipeline itself
    method: str
    module: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def make(self, pipe: Any) -> None:
        target = getattr(pipe, self.component) if self.component else pipe
        if self.module:
            getattr(importlib.import_module(self.module), self.method)(target, **_made(self.arguments))
        else:
            getattr(target, self.method)(**_made(self.arguments))

    def __str__(self) -> str:
        target = f"pipe.{self.component}" if self.component else "pipe"
        text = keywords(self.arguments)
        if self.module:
            return f"{self.module}.{self.method}({', '.join(filter(None, (target, text)))})"
        return f"{target}.{self.method}({text})"


def _made(value: Any) -> Any:
    if isinstance(value, New):
        return value.make()
    return {name: _made(inner) for name, inner in value.items()} if isinstance(value, Mapping) else value


def keywords(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
