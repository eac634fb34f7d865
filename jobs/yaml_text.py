"""From YAML text to plain values, and the line on which each of them stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from framefleet.pipeline.errors import JobError

Path = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Safe values only."""


# PyYAML follows YAML 1.1, where `1e-3` is text; everybody means the number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def parse_yaml(text: str, *, source: str) -> tuple[Any, dict[Path, int]]:
    """Return the value of one document, and the line of every key and entry in it.

    source: how errors call the text. Raises JobError when it is not YAML, or gives a key twice.
    """
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines = _lines(node, source)
        return (None if node is None else loader.construct_document(node)), lines
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise JobError(
            f"{source}{line}: not YAML: {error.problem or error}", "look for a missing quote, colon or space"
        ) from error
    except yaml.YAMLError as error:  # a control character, which no YAML may hold
        raise JobError(f"{source}: not YAML: {error}", "save the file as plain UTF-8 text") from error
    finally:
        if loader is not None:
            loader.dispose()


def _lines(root: yaml.Node | None, source: str) -> dict[Path, int]:
    found: dict[Path, int] = {}
    seen: set[int] = set()  # what an alias names is walked once

    def walk(node: yaml.Node, path: Path, above: tuple[int, ...]) -> None:
        if id(node) in above:
            raise JobError(
                f"{source} line {found[path]}: an alias stands inside what it names", "write it out"
            )
        if id(node) in seen:
            return
        seen.add(id(node))
        for key, line, child in _children(node):
            place = (*path, key)
            if place in found and key != "<<":
                raise JobError(
                    f"{source} line {line}: {key!r} is given already on line {found[place]}",
                    "keep one of them",
                )
            found[place] = line
            walk(child, place, (*above, id(node)))

    if root is not None:
        walk(root, (), ())
    return found


def _children(node: yaml.Node) -> Iterator[tuple[str | int, int, yaml.Node]]:
    """Yield (key, line, value) of a mapping, (index, line, entry) of a list."""
    if isinstance(node, yaml.MappingNode):
        for key, child in node.value:
            yield str(key.value), key.start_mark.line + 1, child
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield index, child.start_mark.line + 1, child
