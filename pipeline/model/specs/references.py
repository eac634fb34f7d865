"""Which inputs take several media in order, each of its own kind, and which classes hold them.

MiniMax-H3's `references` are `list[MiniMaxH3Reference]`. Each subclass says its `kind` and opens a file with
`from_file`; whatever a later pipeline calls such classes, they are found by these two.
"""

from __future__ import annotations

import inspect
import types
import typing
from typing import Any, Literal

MediaKind = Literal["image", "video", "audio"]
MEDIA: tuple[MediaKind, ...] = typing.get_args(MediaKind)


def reference_classes(annotation: Any) -> dict[str, type]:
    """Return by kind the classes of which the annotation has a list; none where it has no such list."""
    is_union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    members = typing.get_args(annotation) if is_union else (annotation,)
    lists = [typing.get_args(member) for member in members if typing.get_origin(member) is list]
    bases: list[Any] = [part for parts in lists for part in parts if isinstance(part, type)]
    found: list[Any] = [made for base in bases for made in type.__subclasses__(base)]
    return {
        made.kind: made
        for made in found
        if hasattr(made, "from_file") and getattr(made, "kind", None) in MEDIA
    }


def references_of(pipe: Any) -> dict[str, dict[str, type]]:
    """Return the inputs of a pipeline's call that take references, and their classes by kind."""
    parameters = inspect.signature(type(pipe).__call__).parameters.values()
    found = {parameter.name: reference_classes(parameter.annotation) for parameter in parameters}
    return {name: classes for name, classes in found.items() if classes}
