"""Figures that were measured here: only in blocks of README and docs that a tool wrote, each with its commit.

    <!-- measured: NAME -->
    ...
    <!-- end 0123456789ab -->

`python -m tools.benchmarks.bench --write-docs NAME` writes the text of a block, and at its end the digest of
the text: whoever changes a figure by hand is refused, as is a sentence with a measured figure outside of a
block. Not measured figures: settings, limits, examples, what is computed, and what others published (link the
source in the same sentence).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from tools.house.house import Finding, House
from tools.house.prose import line_of

BLOCK = re.compile(
    r"<!-- measured: (?P<name>[a-z][a-z0-9-]*) -->\n(?P<body>.*?)<!-- end(?: (?P<digest>[0-9a-f]{12}))? -->",
    re.DOTALL,
)
_NUMBER = r"\d[\d.,]*(?: (?:to|and|or) \d[\d.,]*)?"
_TIME = r"(?:ms|s|seconds?|minutes?|hours?)\b"
_AMOUNT = rf"(?:{_TIME}|%|[KMG]i?B\b|times\b)"
FIX = "have a tool write it into a block (tools/house/measurements.py), or leave it out"
# Each is what nobody sets or computes, but measures.
MEASURED = (
    # Rates, and time of a processor: settings have neither.
    re.compile(rf"{_NUMBER} (?:(?:rows|samples)/s|rows (?:per|a) second|(?:ms|s|seconds?|minutes?) of CPU)"),
    re.compile(rf"{_NUMBER} CPU (?:seconds|s)\b"),
    # "took 3 s", "it takes about 3 ms": what happened, where a setting says what may.
    re.compile(rf"\b(?:took|spent|waited)\b[^.|]{{0,60}}? (?<!at most ){_NUMBER} {_AMOUNT}"),
    re.compile(rf"\b(?:takes?|waits|needs?) (?:about |only |some )?{_NUMBER} {_TIME}"),
    # "1.4 times as fast", "12 % slower", "2 % of the time".
    re.compile(rf"{_NUMBER} times as (?:fast|slow|long|much)|{_NUMBER} % (?:faster|slower|of the time\b)"),
)
# A paragraph with the command of a benchmark, and the table that it printed: its cells are bare figures.
_IN_PARAGRAPH = r"(?:(?!\n\n).)*?"
_TABLE = re.compile(rf"(?:\A|\n\n){_IN_PARAGRAPH}tools\.benchmarks{_IN_PARAGRAPH}\n\n\|", re.DOTALL)
_SENTENCE = re.compile(r"(?:[^.\n|]|\.(?=\S)|\n(?!\n|\||- |\* ))+")
_PUBLISHED = re.compile(r"\]\(https?://")
_CODE = re.compile(r"^(?: {4,}[^\n]*|```.*?^```)$", re.MULTILINE | re.DOTALL)


def digest_of(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:12]


def block(name: str, body: str) -> str:
    """Return a block as a tool writes it."""
    return f"<!-- measured: {name} -->\n{body}<!-- end {digest_of(body)} -->"


def stray_measurements(house: House) -> Iterator[Finding]:
    """Yield blocks that no tool wrote, and figures outside of blocks."""
    for path, text in house.texts.items():
        if has_figures(path):
            yield from _in_page(path, text)


def has_figures(path: str) -> bool:
    """docs/why/ is for those who work on the code: what decided is quoted there, and not measured again."""
    is_page = path.startswith("docs/") and not path.startswith("docs/why/")
    return path in ("README.md", "CONTRIBUTING.md") or (is_page and path.endswith(".md"))


def _in_page(path: str, text: str) -> Iterator[Finding]:
    for match in BLOCK.finditer(text):
        if match["body"] and match["digest"] != digest_of(match["body"]):  # an empty one waits for its tool
            write = f"python -m tools.benchmarks.bench --write-docs {match['name']}"
            yield Finding(path, line_of(text, match.start()), f"no tool wrote this block: run `{write}`")
    text = _hidden(BLOCK, text)
    for table in _TABLE.finditer(text):
        line = line_of(text, table.end() - 1)
        yield Finding(path, line, f"this table is measured: {FIX}")
    text = _hidden(_CODE, text)
    for sentence in _SENTENCE.finditer(text):
        if _PUBLISHED.search(sentence[0]):
            continue
        for measured in MEASURED:
            if figure := measured.search(sentence[0].replace("\n", " ")):
                line = line_of(text, sentence.start() + figure.start())
                yield Finding(
                    path, line, f"{figure[0]!r} is measured: put it into a block that a tool writes"
                )
                break


def _hidden(pattern: re.Pattern[str], text: str) -> str:
    """Return the text without matches, with as many lines, so that lines have their numbers."""
    return pattern.sub(lambda match: "\n" * match[0].count("\n"), text)
