"""From YAML text to plain values, and the line on which each of them stands.

A job file may come from anywhere: its size, its nesting and what its aliases multiply are bounded before they
cost memory. Values are those of JSON: dates are text, and sets and bytes are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.redaction import is_secret_name

Path = tuple[str | int, ...]

# Of the text, and of all values with every alias written out. A job has some thousand.
MAX_CHARACTERS = 1 << 18
MAX_YAML_DEPTH = 32
MAX_INT = 2**64
_FIX = "look for a missing quote, bracket, colon or space, and at how far the line is indented"
_KEY_FIX = (
    "put it in quotes; or, if a comma in {...} has made a key of it, write a list, [0, 1, 2], or a point, 7.5"
)
NO_SPACE = re.compile(r"([\w.]+):([{\[\"']|(?=[\w.-]))")  # after the colon: to YAML, this is one text
_WRITTEN = {"{": "{...}", "[": "[...]"}  # what follows may be a secret

_TAG = "tag:yaml.org,2002:"
_KINDS = ("null", "bool", "int", "float", "str", "seq", "map")
# Without the numbers of YAML 1.1 that nobody means (12:30 is 750, 010 is 8), and with those that it lacks
# (1e-3).
_NUMBERS = {
    "int": r"[-+]?(0b[01_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$",
    "float": r"[-+]?(([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"
    r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$",
}
_BRACES = re.compile(r"(?:^|[-:,\[]\s*)\{\w+\}\s*[^\s,\]}]|\w\s+\{\w+\}")  # {style} ball, a {style} ball
_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # written as escapes: no path and no file can hold them
# Characters that JSON has as they are, and that YAML refuses, or folds as ends of lines.
_UNLIKE_JSON = re.compile("[\x7f-\x9f\u2028\u2029\ufffe\uffff]")


def yaml_of(value: Any) -> str:
    """Return a value of JSON in one line, which `parse_yaml` reads as the same value."""
    text = json.dumps(value, ensure_ascii=False)  # halves of characters, as escapes, would be refused
    return _UNLIKE_JSON.sub(lambda character: f"\\u{ord(character[0]):04x}", text)


class _Loader(yaml.SafeLoader):
    """Loads values of JSON only. Raises yaml.MarkedYAMLError for anything else."""

    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.removeprefix(_TAG) in _KINDS
    }
    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's types say that it is not a ClassVar
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag.removeprefix(_TAG) in ("null", "bool", "merge")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > MAX_YAML_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem=f"it nests more than {MAX_YAML_DEPTH} levels deep", problem_mark=mark
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ArithmeticError, LookupError, ValueError):  # `!!int x`, `!!bool x`, too many digits
            raise ConstructorError(
                problem=f"{node.value!r:.80} is not a valid {node.tag.removeprefix(_TAG)}",
                problem_mark=node.start_mark,
            ) from None
        if isinstance(value, int) and abs(value) > MAX_INT:
            raise ConstructorError(
                problem=f"{node.value:.80} is too large a number", problem_mark=node.start_mark
            )
        return value


for _name, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), list("-+.0123456789"))


def parse_yaml(text: str, *, source: str) -> tuple[Any, dict[Path, int]]:
    """Return the value of one document, and the line of every key and entry in it.

    source: how errors call the text. Raises JobError when it is not YAML, beyond a bound, or has a key twice.
    """
    if len(text) > MAX_CHARACTERS:
        problem = f"{source} is longer than {MAX_CHARACTERS:,} characters"
        raise JobError(problem, "shorten it; keep long lists in files")
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        walk = _Walk(source)
        walk.measure(node, ())
        return loader.construct_document(node), walk.lines
    except yaml.MarkedYAMLError as error:
        # A missing colon is noticed only at the next key. The error's own text may quote a secret.
        is_key = error.context == "while scanning a simple key"
        mark = error.context_mark if is_key else error.problem_mark
        if mark is None:
            raise JobError(f"{source}: not YAML: {error.problem or error}", _FIX) from None
        before = text.splitlines()[max(mark.line - 1, 0) : mark.line + 1]  # a value may stand below its key
        if before and before[-1][mark.column : mark.column + 1] == "\t":
            problem, fix = "a tab", "indent with spaces, as YAML requires"
        elif any(map(_BRACES.search, before)):
            problem, fix = "a text has {, which begins a mapping of YAML", "put the text in quotes"
        elif any(NO_SPACE.match(line.strip()) for line in before):
            problem, fix = "no space after a colon", "write `key: value`"
        else:
            reason = "" if any(map(is_secret_name, before)) else f": {error.problem or error}"
            problem, fix = f"not YAML{reason}", _FIX
        raise JobError(f"{source} line {mark.line + 1}: {problem}", fix) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # characters that no YAML may hold
        raise JobError(f"{source}: not YAML: {error}", "save the file as plain UTF-8 text") from error
    finally:
        if loader is not None:
            loader.dispose()


class _Walk:
    """Checks a document before its values are made. lines: the line of every key and entry."""

    def __init__(self, source: str) -> None:
        self.lines: dict[Path, int] = {}
        self._source = source
        self._open: set[int] = set()
        self._measured: dict[int, tuple[int, int]] = {}

    def measure(self, node: yaml.Node, path: Path) -> tuple[int, int]:
        """Return (characters, depth) with every alias written out. Raises JobError."""
        if id(node) in self._open:
            raise self._mistake(self.lines[path], "a YAML alias refers to itself", "write it out")
        if id(node) in self._measured:  # by an alias
            return self._measured[id(node)]
        self._open.add(id(node))
        if isinstance(node, yaml.ScalarNode) and _NO_TEXT.search(node.value):
            line = node.start_mark.line + 1
            raise self._mistake(line, "it contains \\0 or half a character", "write plain text")
        size, depth = (1 + len(node.value) if isinstance(node, yaml.ScalarNode) else 1), 0
        for key, line, child in self._children(node):
            place = (*path, key)
            if place in self.lines and key != "<<":
                earlier = self.lines[place]
                raise self._mistake(
                    line, f"{key!r:.80} is given already on line {earlier}", "keep one of them"
                )
            self.lines[place] = line
            more, below = self.measure(child, place)
            size, depth = size + len(str(key)) + more, max(depth, below + 1)
            if size > MAX_CHARACTERS or depth > MAX_YAML_DEPTH:
                most = f"{MAX_CHARACTERS:,} characters or {MAX_YAML_DEPTH} levels"
                raise self._mistake(line, f"aliases written out, it has more than {most}", "shorten it")
        self._open.remove(id(node))
        self._measured[id(node)] = (size, depth)
        return size, depth

    def _children(self, node: yaml.Node) -> Iterator[tuple[str | int, int, yaml.Node]]:
        """Yield (key, line, value) of a mapping, (index, line, entry) of a list."""
        if isinstance(node, yaml.MappingNode):
            for key, child in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode) or key.tag not in (_TAG + "str", _TAG + "merge"):
                    shown = repr(key.value) if isinstance(key, yaml.ScalarNode) else "a list or a mapping"
                    raise self._mistake(line, f"the key {shown:.80} is not text", _KEY_FIX)
                is_empty = isinstance(child, yaml.ScalarNode) and not child.value and child.style is None
                if key.style is None and (glued := NO_SPACE.match(key.value)) and (is_empty or glued[2]):
                    problem = f"{glued[1]!r:.80} has no space after its colon"
                    raise self._mistake(line, problem, f"write `{glued[1]}: {_WRITTEN.get(glued[2], '...')}`")
                yield key.value, line, child
        elif isinstance(node, yaml.SequenceNode):
            for index, child in enumerate(node.value):
                yield index, child.start_mark.line + 1, child

    def _mistake(self, line: int, problem: str, fix: str) -> JobError:
        return JobError(f"{self._source} line {line}: {problem}", fix)
