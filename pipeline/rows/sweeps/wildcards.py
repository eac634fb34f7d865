"""From texts of a sweep with wildcards, `{red|blue}` and `__animal__`, to every text that they stand for.

The texts are never all in memory: each is made from its number. Options and lines of files may have wildcards
themselves.
"""

from __future__ import annotations

import hashlib
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from framefleet.pipeline.errors import JobError, shown

_TOKEN = re.compile(r"\{\{[^{}]*\}\}|\b__(?P<name>[A-Za-z][\w/-]*?)__(?!\w)|[{|}]")
_JSON = re.compile(r'\s*\{\s*"')  # some models are prompted with JSON: it has no wildcards
_WEIGHT = re.compile(r"\s*(?:[\d-]*\$\$|\d*\.?\d+::)")  # how many options, how often: of other programs
_MAX_DEPTH = 32  # of wildcards in options; a text is made by recursion
_MAX_EVEN = 1 << 30  # drawn places have 30 bits: of more texts some would never be drawn


@dataclass(frozen=True, slots=True)
class Choices:
    """Texts one after another; each stands for one or more."""

    texts: tuple[WildcardText, ...]
    ends: tuple[int, ...]  # the number after the last one of each text

    @classmethod
    def of(cls, texts: Iterable[WildcardText]) -> Choices:
        texts = tuple(texts)
        return cls(texts, tuple(accumulate(text.num for text in texts)))

    @property
    def num(self) -> int:
        return self.ends[-1]

    def at(self, number: int) -> str:
        """Return the text of a number below `num`."""
        place = bisect_right(self.ends, number)
        return self.texts[place].at(number - (self.ends[place - 1] if place else 0))

    def __iter__(self) -> Iterator[str]:
        return (text.at(number) for text in self.texts for number in range(text.num))

    def drawn(self, place: float) -> str:
        """Return the text at a place, 0 to below 1, the same on every machine."""
        if self.num <= _MAX_EVEN:
            return self.at(min(int(place * self.num), self.num - 1))
        digest = hashlib.sha256(repr(place).encode()).digest()
        return self.at(int.from_bytes(digest, "big") % self.num)


@dataclass(frozen=True, slots=True)
class WildcardText:
    """Pieces one after another: a text, or options."""

    pieces: tuple[str | Choices, ...]
    num: int  # of the texts that it stands for

    def at(self, number: int) -> str:
        """Return the text of a number below `num`; the last options change first."""
        texts: list[str] = []
        for piece in reversed(self.pieces):
            if isinstance(piece, Choices):
                number, index = divmod(number, piece.num)
                piece = piece.at(index)
            texts.append(piece)
        return "".join(reversed(texts))


def wildcard_texts(
    texts: Sequence[object], lines_of: Callable[[str], Sequence[str]], place: str
) -> Choices | None:
    """Return what texts stand for; None without wildcards. lines_of: of `__name__`. Raises JobError."""
    parser = _Parser(lines_of, place, {})
    own = [text for text in texts if isinstance(text, str)]
    parsed = [parser.parse(text) for text in own]
    if [text.pieces for text in parsed] == [(text,) for text in own]:
        return None
    if other := [text for text in texts if not isinstance(text, str)]:
        raise JobError(f"{place} has wildcards, and {shown(other[0])}, which is not a text", "leave one out")
    return Choices.of(parsed)


@dataclass(frozen=True, slots=True)
class _Parser:
    lines_of: Callable[[str], Sequence[str]]
    place: str
    files: dict[str, Choices | None]  # by the names of wildcards; None: being read

    def parse(self, text: str) -> WildcardText:
        if _JSON.match(text):
            return _text([text])
        groups: list[list[list[str | Choices]]] = [[[]]]  # those that are open; each has options, of pieces
        end = 0
        for match in _TOKEN.finditer(text):
            groups[-1][-1].append(text[end : match.start()])
            token, end = match[0], match.end()
            if match["name"]:
                groups[-1][-1].append(self._file(match["name"]))
            elif token == "{":
                if len(groups) > _MAX_DEPTH:
                    raise JobError(f"{self.place} has braces in {_MAX_DEPTH} others", "use fewer")
                groups.append([[]])
            elif token == "|" and len(groups) > 1:
                groups[-1].append([])
            elif token == "}" and len(groups) > 1:
                options = groups.pop()
                groups[-1][-1] += [self._options(options)] if len(options) > 1 else ["{", *options[0], "}"]
            elif len(token) > 1 and "|" in token:
                groups[-1][-1].append(token[1:-1])  # {{red|blue}} is {red|blue} as it stands
            else:
                groups[-1][-1].append(token)
        groups[-1][-1].append(text[end:])
        while len(groups) > 1:  # never closed
            for number, option in enumerate(groups.pop()):
                groups[-1][-1] += ["|" if number else "{", *option]
        return _text(groups[0][0])

    def _options(self, options: list[list[str | Choices]]) -> Choices:
        for pieces in options:
            if pieces and isinstance(pieces[0], str) and (weight := _WEIGHT.match(pieces[0])):
                raise JobError(
                    f"{self.place} has {weight[0].strip()!r} in a wildcard, which framefleet does not read",
                    "write an option several times to have it more often, or make a table",
                )
        return Choices.of(map(_text, options))

    def _file(self, name: str) -> Choices:
        if name not in self.files:
            self.files[name] = None
            self.files[name] = Choices.of(map(self.parse, self.lines_of(name)))
        if (options := self.files[name]) is None:
            raise JobError(f"{self.place}: the file of __{name}__ leads back to itself", "leave one out")
        return options


def _text(pieces: Sequence[str | Choices]) -> WildcardText:
    """Return a text of these pieces, neighbouring texts as one."""
    joined: list[str | Choices] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(last := joined[-1], str):
            joined[-1] = last + piece
        elif piece != "":
            joined.append(piece)
    num = math.prod(one.num for one in joined if isinstance(one, Choices))
    return WildcardText(tuple(joined or [""]), num)
