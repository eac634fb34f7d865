"""Words that readers stumble over, in messages and in documents; for each there is a more common one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from tools.house.house import Finding, House
from tools.house.prose import line_of

ODD = re.compile(r"\b(told|telling|in company|beside|so many|so long)\b", re.IGNORECASE)
# Files are called by nouns: from the name of a task a reader must be able to guess the file.
ODD_NAMES = re.compile(
    r"(^|_)((apart|again|asked|beside|given|kept|known|others|soon|told|where)|(?!feed|seed|embed)\w+ed)$"
)
_DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/")
_BLOCKS = (ast.Module, ast.ClassDef, ast.FunctionDef)


def odd_words(house: House) -> Iterator[Finding]:
    """Yield where a message, or a page of docs/, says such a word; not comments and docstrings."""
    for path, text in house.texts.items():
        if path.startswith(_DOCUMENTS) and path.endswith(".md"):
            for match in ODD.finditer(text):
                yield Finding(path, line_of(text, match.start()), _problem(match))
    for path, tree in house.trees.items():
        if ODD_NAMES.search(PurePosixPath(path).stem):
            yield Finding(path, 1, "is called by a participle or an adverb: use a noun of the field")
        docstrings = {id(node.body[0].value) for node in ast.walk(tree) if _has_docstring(node)}
        for node in ast.walk(tree):
            is_message = isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
            if is_message and id(node) not in docstrings and (match := ODD.search(node.value)):
                yield Finding(path, node.lineno, _problem(match))


def _has_docstring(node: ast.AST) -> bool:
    first = node.body[0] if isinstance(node, _BLOCKS) and node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)


def _problem(match: re.Match[str]) -> str:
    return f"says {match[0]!r}: use report, show, next to, in a batch, this many or this long"
