"""Words that readers stumble over, in code and in documents; for each there is a more common one."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import PurePosixPath

from tools.house.house import PACKAGES, Finding, House

ODD = re.compile(r"\b(told|telling|in company|beside|so many|so long)\b", re.IGNORECASE)
# In what users read; in comments they are only less common.
ODD_FOR_USERS = re.compile(
    r"\b(?:go(?:es)? on|gone on|going on|tells?|mend(?:s|ed)?|spelt|(?:is|are) said|for want of|"
    r"each for itself|hand(?:ed)? it on|does not answer since)\b",
    re.IGNORECASE,
)
# Files are called by nouns: from the name of a task a reader must be able to guess the file.
ODD_NAMES = re.compile(
    r"(^|_)((apart|again|asked|beside|given|kept|known|others|soon|told|where)|(?!feed|seed|embed)\w+ed)$"
)
_DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/",
    "framefleet/",
    *(f"{name}/" for name in PACKAGES),
)
_FOR_USERS = ("README.md", "docs/")
_PROSE = (tokenize.STRING, tokenize.COMMENT)  # of names only those in texts count


def odd_words(house: House) -> Iterator[Finding]:
    """Yield where code or a document says such a word, or a file is called so."""
    for path, text in house.texts.items():
        if path.startswith(_DOCUMENTS) and path.endswith(".md"):
            yield from _odd(path, 1, text)
        if path.startswith(_FOR_USERS) and path.endswith(".md"):
            yield from _odd(path, 1, text, ODD_FOR_USERS)
    for path in house.trees:
        if ODD_NAMES.search(PurePosixPath(path).stem):
            yield Finding(path, 1, "is called by a participle or an adverb: use a noun of the field")
        for token in tokenize.generate_tokens(io.StringIO(house.texts[path]).readline):
            if token.type in _PROSE and " " in token.string:
                yield from _odd(path, token.start[0], token.string)


def _odd(path: str, line: int, text: str, odd: re.Pattern[str] = ODD) -> Iterator[Finding]:
    for match in odd.finditer(text):
        yield Finding(path, line + text.count("\n", 0, match.start()), _problem(match))


def _problem(match: re.Match[str]) -> str:
    return (
        f"says {match[0]!r}: use report, show, continue, repair, next to, in a batch, this many or this long"
    )
