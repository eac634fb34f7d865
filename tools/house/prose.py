"""What is said to readers: all of a document, and the comments and docstrings of Python."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Callable, Iterator

from tools.house.house import Finding, House

DOCUMENTS = (".md", ".toml", ".yaml", ".yml", "Makefile")
_BEFORE_A_DOCSTRING = {tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, None}
_UNSEEN = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING}

Problem = Callable[[str, re.Match[str]], str | None]  # of a match in the file of that path


def said_wrongly(
    house: House, pattern: re.Pattern[str], problem: Problem, *, in_messages: bool = False
) -> Iterator[Finding]:
    """Yield the problems of what a pattern finds in prose. in_messages: also in the code of the product."""
    for path, text in house.texts.items():
        if path.endswith((*DOCUMENTS, ".py")):
            wrong = [(match, said) for match in pattern.finditer(text) if (said := problem(path, match))]
            is_prose = path.endswith(DOCUMENTS) or (in_messages and path in house.trees)
            # Of few files: tokenizing all would take longer than everything else.
            spans = [(0, len(text))] if is_prose or not wrong else list(_spans(text))
            for match, said in wrong:
                if any(start <= match.start() < end for start, end in spans):
                    yield Finding(path, line_of(text, match.start()), said)


def line_of(text: str, offset: int) -> int:
    """Return the number of the line that an offset stands in."""
    return text.count("\n", 0, offset) + 1


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the beginnings and ends of comments and docstrings."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    last = None
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        is_docstring = token.type == tokenize.STRING and last in _BEFORE_A_DOCSTRING
        if is_docstring or token.type == tokenize.COMMENT:
            yield starts[token.start[0] - 1] + token.start[1], starts[token.end[0] - 1] + token.end[1]
        if token.type not in _UNSEEN:
            last = token.type
