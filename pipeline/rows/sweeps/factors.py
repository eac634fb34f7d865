"""From `sweep:` to its factors (columns of values that vary together), with wildcards in texts expanded.

A text with wildcards, `{red|blue}` or `__animal__`, stands for many texts. They are never all in memory: each
is made from its number. Options, and lines of wildcard files, may have wildcards themselves.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import accumulate, zip_longest
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from framefleet.pipeline.errors import JobError, shown
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.guards.redaction import check_url, keep_secrets, public_text, public_url
from framefleet.pipeline.guards.regular_file import read_regular
from framefleet.pipeline.model.specs.signature import ArgumentKind
from framefleet.pipeline.outputs.stores.retries import why_unread
from framefleet.pipeline.rows.sweeps import settings
from framefleet.pipeline.rows.tables import formats

_FILE = r"__(?P<name>(?!_)(?:(?!__)[^{}|\n])+)__"  # next to any text, also of languages without spaces
_TOKEN = re.compile(rf"\{{\{{(?:(?!__)[^{{}}])*\}}\}}|{_FILE}|[{{|}}]")
_JSON_STRING = r'"(?:[^"\\]|\\.)*"'
_JSON = re.compile(rf"\s*\{{\s*{_JSON_STRING}\s*:")  # some models take JSON as prompts
_WEIGHT = re.compile(r"\s*(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})\s*::\s*")  # how often an option is drawn
_WEIGHT_FIX = "write a weight as {3::red|blue}, and an option several times to have it more often"
# Syntax of other programs that framefleet does not read: numbers of options, weights in other forms, methods
# of drawing...
_UNREAD = re.compile(r"\s*[~@!]?(?:[\d\s,-]*\$\$|\s*[-+]?\d*\.?\d*(?:e[-+]?\d+)?%?\s*::)", re.IGNORECASE)
_DRAWN = re.compile(r"\s*[~@!]")
# ...repetitions of a line, variables, settings as A1111 writes them, and command-line options.
_FOREIGN = re.compile(
    r"\d+#(?=__)|\$\{\w+\s*[=:]|^(?:negative prompt:|steps: \d+,)|(?<!\S)--[a-z]\w*(?:-\w+)*(?=[\s=]|$)",
    re.IGNORECASE | re.MULTILINE,
)
_UNDERSCORES = re.compile(r"(?<!_)__(?!_)")
_NOT_A_FILE = re.compile(r"[*?\[\]:#\\]|^/|(?:^|/)\.\.?(?:/|$)")  # in names between underscores
_MAX_DEPTH = 32  # of nested wildcards; texts are made by recursion
_PLAIN = 100  # whole floats below are written as 5.0, and larger ones also as 1e3
_MAX_EVEN = 1 << 30  # drawn places have 30 bits: with more texts, some would never be drawn


class Draw:
    """Weighted picks, one after another, that depend only on `place`, from 0 to below 1.

    Equal on every machine, because it computes with whole numbers: a number below a size, and each pick
    narrows both.
    """

    def __init__(self, place: float) -> None:
        self._number, self._size = int(place * _MAX_EVEN), _MAX_EVEN
        self._lengthen(repr(place))

    def pick(self, ends: Sequence[int]) -> int:
        """Return a number below len(ends). ends: the cumulative sums of the weights."""
        total = ends[-1]
        while self._size < total << 64:
            self._lengthen(f"{self._number} {self._size}")
        picked = bisect_right(ends, self._number * total // self._size)
        first = -(-(ends[picked - 1] if picked else 0) * self._size // total)
        self._number, self._size = self._number - first, -(-ends[picked] * self._size // total) - first
        return picked

    def _lengthen(self, text: str) -> None:
        digest = hashlib.sha256(text.encode()).digest()
        self._number, self._size = self._number << 256 | int.from_bytes(digest, "big"), self._size << 256


def weight_ends(weights: Sequence[Fraction | float]) -> tuple[int, ...]:
    """Return the cumulative sums of weights, as whole numbers in the same proportions."""
    exact = [Fraction(str(weight)) for weight in weights]
    scale = math.lcm(*(weight.denominator for weight in exact))
    return tuple(accumulate(int(weight * scale) for weight in exact))


@dataclass(frozen=True, slots=True)
class Choices:
    """Alternative texts; each stands for one text or more."""

    texts: tuple[WildcardText, ...]
    ends: tuple[int, ...]  # cumulative sums of how many texts each stands for
    weight_ends: tuple[int, ...]  # cumulative sums of weights; () if no text in it, nested or not, has one

    @classmethod
    def of(cls, texts: Iterable[WildcardText], weights: Sequence[Fraction | float | None] = ()) -> Choices:
        """weights: how often each text is drawn, None for 1; texts with weight 0 are left out."""
        every = [*zip_longest(texts, weights)]
        drawable = [(text, 1 if weight is None else weight) for text, weight in every if weight != 0]
        parts = tuple(text for text, _ in drawable)
        inner = [piece for text in parts for piece in text.pieces if isinstance(piece, Choices)]
        is_weighted = any(weight is not None for _, weight in every) or any(one.weight_ends for one in inner)
        sums = weight_ends([weight for _, weight in drawable]) if is_weighted else ()
        return cls(parts, tuple(accumulate(text.num for text in parts)), sums)

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
        """Return the text at a place from 0 to below 1, the same on every machine.

        With weights, each wildcard is drawn by the weights of its options; without, all texts are equally
        likely.
        """
        if self.weight_ends:
            return self.picked(Draw(place))
        if self.num <= _MAX_EVEN:
            return self.at(min(int(place * self.num), self.num - 1))
        digest = hashlib.sha256(repr(place).encode()).digest()
        return self.at(int.from_bytes(digest, "big") % self.num)

    def picked(self, draw: Draw) -> str:
        option = self.texts[draw.pick(self.weight_ends or range(1, len(self.texts) + 1))]
        return "".join(piece if isinstance(piece, str) else piece.picked(draw) for piece in option.pieces)


@dataclass(frozen=True, slots=True)
class WildcardText:
    """A text with wildcards, as a sequence of plain texts and choices."""

    pieces: tuple[str | Choices, ...]
    num: int  # how many texts it stands for

    def at(self, number: int) -> str:
        """Return the text of a number below `num`; the last choices change first."""
        texts: list[str] = []
        for piece in reversed(self.pieces):
            if isinstance(piece, Choices):
                number, index = divmod(number, piece.num)
                piece = piece.at(index)
            texts.append(piece)
        return "".join(reversed(texts))


def wildcard_texts(
    texts: Sequence[object],
    lines_of: Callable[[str], Sequence[str]] | None,
    place: str,
    weights: Sequence[float] = (),
) -> Choices | None:
    """Return the choices that texts stand for; None if they have no wildcards. Raises JobError.

    lines_of: returns the lines for `__name__`; None if the sweep has no folder of wildcard files. weights:
    one for each text, or none.
    """
    parser = _Parser(lines_of, place, {})
    own = [text for text in texts if isinstance(text, str)]
    parsed = [parser.parse(text) for text in own]
    if [text.pieces for text in parsed] == [(text,) for text in own]:
        return None
    if other := [text for text in texts if not isinstance(text, str)]:
        raise JobError(f"{place} has wildcards, and {shown(other[0])}, which is not a text", "leave one out")
    return Choices.of(parsed, weights)


@dataclass(frozen=True, slots=True)
class _Parser:
    lines_of: Callable[[str], Sequence[str]] | None
    place: str
    files: dict[str, Choices | None]  # by name of the wildcard; None while it is read

    def parse(self, text: str) -> WildcardText:
        if word := _FOREIGN.search(text):
            raise self._unread(word[0], text, "settings are columns of a table, or keys of the sweep")
        unpaired = _UNDERSCORES.findall(re.sub(_FILE, "|", text)) if "__" in text else []
        if unpaired and (self.lines_of or len(unpaired) > 1):
            raise self._unread("__", text, "write __animal__ for a line of animal.txt")
        if _JSON.match(text):
            return self._json(text)
        groups: list[list[list[str | Choices]]] = [[[]]]  # the open ones: lists of options, of pieces
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
                choices = self._options(options, text)
                groups[-1][-1] += [choices] if choices else ["{", *options[0], "}"]
            elif len(token) > 1 and "|" in token:
                groups[-1][-1].append(token[1:-1])  # {{red|blue}} is the plain text {red|blue}
            else:
                groups[-1][-1].append(token)
        groups[-1][-1].append(text[end:])
        while len(groups) > 1:  # never closed
            options = groups.pop()
            if len(options) > 1:
                raise self._unread("{", text, "close it with }, or leave it out")
            groups[-1][-1] += ["{", *options[0]]
        return _text(groups[0][0])

    def _json(self, text: str) -> WildcardText:
        """Parse a JSON prompt: its strings may have wildcards, other braces are plain text."""
        pieces: list[str | Choices] = []
        for part in re.split(f"({_JSON_STRING})", text):
            if part.startswith('"'):
                pieces += self.parse(part).pieces
            elif "|" in part:
                raise self._unread("|", text, "write wildcards inside of the JSON's strings")
            else:
                pieces.append(part)
        return _text(pieces)

    def _options(self, options: Sequence[list[str | Choices]], text: str) -> Choices | None:
        """Return the choices between two braces; None for a single option without a weight."""
        if len(options) > 1 and isinstance(first := options[0][0], str) and (drawn := _DRAWN.match(first)):
            raise self._unread(drawn[0].strip(), text, _WEIGHT_FIX)
        weights = [self._weight(pieces, text) for pieces in options]
        if weights == [None]:
            return None
        return self._weighted(map(_text, options), weights, text)

    def _weight(self, pieces: list[str | Choices], text: str) -> Fraction | None:
        """Remove an option's weight and return it. Raises JobError for syntax of other programs."""
        first = pieces[0] if isinstance(pieces[0], str) else ""
        if weight := _WEIGHT.match(first):
            pieces[0] = first = first[weight.end() :]
        if word := _UNREAD.match(first):
            raise self._unread(word[0].strip(), text, _WEIGHT_FIX)
        return Fraction(weight[1]) if weight else None

    def _weighted(
        self, texts: Iterable[WildcardText], weights: Sequence[Fraction | None], text: str
    ) -> Choices:
        if not any(weight is None or weight for weight in weights):
            raise JobError(f"{self.place}: all weights in {shown(text)} are 0", "set one above 0")
        return Choices.of(texts, weights)

    def _unread(self, word: str, text: str, fix: str) -> JobError:
        problem = f"{self.place} has {word!r} in {shown(text)}, which framefleet does not read"
        return JobError(problem, f"{fix}; in a table, all text is plain")

    def _file(self, name: str) -> Choices:
        if self.lines_of is None:
            fix = f"set sweep.wildcards to the folder of {name}.txt; in a table it is plain text"
            raise JobError(f"{self.place} has __{name}__, and sweep.wildcards is not set", fix)
        if _NOT_A_FILE.search(name):
            fix = "name one file; for lines of several, write {__cats__|__dogs__}"
            raise JobError(f"{self.place} has __{name}__, which is not the name of a file", fix)
        if name not in self.files:
            self.files[name] = None
            lines: list[list[str | Choices]] = [[line] for line in self.lines_of(name)]
            weights = [self._weight(line, str(line[0])) for line in lines]
            texts = (self.parse(str(text)) for (text,) in lines)
            self.files[name] = self._weighted(texts, weights, f"__{name}__")
        if (options := self.files[name]) is None:
            raise JobError(f"{self.place}: the file of __{name}__ refers to itself", "remove that wildcard")
        return options


def _text(pieces: Sequence[str | Choices]) -> WildcardText:
    """Return a text of these pieces, with adjacent plain texts joined."""
    joined: list[str | Choices] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(last := joined[-1], str):
            joined[-1] = last + piece
        elif piece != "":
            joined.append(piece)
    num = math.prod(piece.num for piece in joined if isinstance(piece, Choices))
    return WildcardText(tuple(joined or [""]), num)


TEXT_KINDS: tuple[ArgumentKind, ...] = ("str", "image", "video", "model")
# Those whose values may be texts with {names}, e.g. a seed that is in a column.
FILLED_KINDS: tuple[ArgumentKind, ...] = (*TEXT_KINDS, "int", "images", "list[image]")
Indices = NDArray[np.int64]
_SHOWN = 100  # characters of a line in a message
_MAX_BYTES = 64 << 20  # a million prompts as people write them


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The values of one argument or placeholder; a range is never expanded."""

    name: str
    kind: ArgumentKind | None
    values: range | pa.Array
    has_weights: bool = False  # they have no effect, because each value is rendered once

    @property
    def type(self) -> pa.DataType:
        return pa.int64() if isinstance(self.values, range) else self.values.type

    def take(self, indices: Indices) -> pa.Array:
        if isinstance(self.values, range):
            return pa.array(self.values.start + indices * self.values.step, pa.int64())
        return self.values.take(pa.array(indices))

    def some(self) -> list[Any]:
        """Return the values that are checked before any row: all, or both ends of a range."""
        values = self.values
        return [values[0], values[-1]] if isinstance(values, range) else values.to_pylist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """Columns of equal length that vary together. unit: the name of one of its `num` values."""

    columns: tuple[Column, ...]
    num: int
    unit: str

    def __str__(self) -> str:
        first, of, names = self.unit.partition(" of ")  # "sobol samples of height"
        is_weighted = any(column.has_weights for column in self.columns)
        note = " (each once: weights count below sweep.sample.over)" * is_weighted
        return f"{self.num:,} {first}{'s' * (self.num > 1 and not first.endswith('s'))}{of}{names}{note}"


def factors_of(
    sweep: settings.Sweep, kinds: Mapping[str, ArgumentKind], storage_options: Mapping[str, Any]
) -> tuple[Factor, ...]:
    """Return the factors: those that are crossed, then the sampled one. Raises JobError.

    kinds: of all arguments; placeholders have none.
    """
    reading = _Reading(kinds, storage_options, sweep.wildcards)
    crossed = []
    for name, written in sweep.factors.items():
        column, unit = reading.column(name, written, f"sweep.{name}"), re.sub(r"^num_(.*?)s?$", r"\1", name)
        num = settings.count(column.values)
        crossed.append(Factor(columns=(column,), num=num, unit=unit.replace("_", " ")))
    return (*crossed, *reading.drawn(sweep))


@dataclass(frozen=True, slots=True)
class _Reading:
    kinds: Mapping[str, ArgumentKind]
    storage_options: Mapping[str, Any]
    wildcards: str | None  # the folder of wildcard files

    def column(self, name: str, written: settings.Spread, place: str) -> Column:
        kind = self.kinds.get(name)
        values, has_weights = self._values(written, kind, place), bool(written.weights)
        if isinstance(values, Choices):
            has_weights |= bool(values.weight_ends)
            if values.num > settings.MAX_VALUES:
                num = f"{values.num:,}" if values.num < 10**100 else "more than 10^100"
                raise JobError(
                    f"{place} stands for {num} texts, but the limit is {settings.MAX_VALUES:,}",
                    f"draw some of them: sweep: {{sample: {{num: 1000, over: {{{name}: ...}}}}}}",
                )
            values = [*values]
        elif isinstance(values, list) and written.weights:
            values = [value for value, weight in zip(values, written.weights, strict=True) if weight]
        if not isinstance(values, range):
            values = _array(values, kind, place)
        return Column(name=name, kind=kind, values=values, has_weights=has_weights)

    def drawn(self, sweep: settings.Sweep) -> Iterator[Factor]:
        """Yield the factor of the sample, if there is one."""
        if (sample := sweep.sample) is None:
            return
        over = sample.over
        places = points(sample.method, num=sample.num, dimensions=len(over), seed=sample.seed)
        columns = tuple(
            self._drawn_column(name, written, places[:, number])
            for number, (name, written) in enumerate(over.items())
        )
        unit = f"{sample.method} sample of {', '.join(sample.over)}"
        yield Factor(columns=columns, num=sample.num, unit=unit)

    def _drawn_column(self, name: str, written: settings.Spread, places: NDArray[np.float64]) -> Column:
        """Return for each place, from 0 to below 1, one of the values, or a number in the range."""
        kind, place = self.kinds.get(name), f"sweep.sample.over.{name}"
        is_whole = kind == "int"
        is_log = written.scale == "log"
        if written.is_range and not (written.step or written.num) and (is_log or not is_whole):
            ends = float(written.from_ or 0), float(written.to or 0)
            values: list[Any] = [settings.number_between(*ends, float(at), is_log=is_log) for at in places]
            values = [*map(round, values)] if is_whole else values
        elif isinstance(choices := self._values(written, kind, place), Choices):
            values = [choices.drawn(float(at)) for at in places]
        elif written.weights:
            sums = weight_ends(written.weights)
            values = [choices[Draw(float(at)).pick(sums)] for at in places]
        else:
            num = settings.count(choices)
            values = [choices[min(int(at * num), num - 1)] for at in places]
        return Column(name=name, kind=kind, values=_array(values, kind, place))

    def _values(
        self, written: settings.Spread, kind: ArgumentKind | None, place: str
    ) -> range | list[Any] | Choices:
        if written.is_range:
            return settings.numbers_of(written, place, is_whole=kind == "int")
        listed: list[Any] = written.values or []
        if written.file is not None:
            listed = lines_of(written.file, f"{place}.file", self.storage_options)
        if kind is None:
            _check_words(listed, place)
        lines_of_file = partial(self._lines, place, self.wildcards) if self.wildcards else None
        weights = written.weights or ()
        if kind in ("str", None) and (texts := wildcard_texts(listed, lines_of_file, place, weights)):
            return texts
        if written.file is not None or written.weights or kind in (*TEXT_KINDS, "bool"):
            return listed
        ranges = [settings.short_range(value, place) for value in listed]
        if len(ranges) == 1 and ranges[0] is not None:
            return ranges[0]
        if sum(settings.count(numbers) for numbers in ranges if numbers) > settings.MAX_VALUES:
            problem = f"{place} lists more than {settings.MAX_VALUES:,} values"
            raise JobError(problem, "use a range, e.g. 0-63")
        return [number for value, some in zip(listed, ranges, strict=True) for number in some or [value]]

    def _lines(self, place: str, folder: str, name: str) -> list[str]:
        """Return the lines of the file for `__name__`, without comments, which begin with #."""
        file = f"{folder.rstrip('/')}/{name}.txt"
        lines = lines_of(file, f"{place}: __{name}__", self.storage_options)
        return [line for line in lines if not line.startswith("#")] or [""]


def _check_words(values: Sequence[object], place: str) -> None:
    """Raise JobError for a word of texts that might not stand there as it was written, e.g. 1e3 as 1000.0."""
    has_points = any(type(value) is float for value in values)
    for value in values:
        if isinstance(value, bool):
            what, text = "on, off, yes, no, true and false", str(value).lower()
        elif isinstance(value, int | float) and not _is_as_written(value, has_points=has_points):
            what, text = "such numbers", str(value)
        else:
            continue
        before = value if isinstance(value, bool) else float(value)
        fix = f'put {what} in quotes, as texts shall have them; earlier versions wrote "{before}"'
        raise JobError(f"{place} has {text}, which texts may have in another spelling", fix)


def _is_as_written(value: float, *, has_points: bool) -> bool:
    """has_points: whether the list also has floats, so that its whole numbers are written as 1.0."""
    if type(value) is int:
        return not has_points
    return "e" not in str(value) and (not float(value).is_integer() or abs(value) < _PLAIN)


def _array(values: list[Any], kind: ArgumentKind | None, place: str) -> pa.Array:
    """Return a table's column: numbers if all values are numbers, else text, which is read as in CSV."""
    if kind in TEXT_KINDS and (wrong := [value for value in values if not isinstance(value, str | None)]):
        raise JobError(f"{place} has {shown(wrong[0])}, which is not a text", "put it in quotes")
    types = {type(value) for value in values} - {type(None)}
    try:
        if types in ({bool}, {int}, {float}, {int, float}):
            return pa.array(values, None if types != {int, float} else pa.float64())
        return pa.array([text if isinstance(text, str | None) else canonical_json(text) for text in values])
    except (OverflowError, pa.ArrowInvalid):
        raise JobError(f"{place} has a number beyond 64 bits", "use smaller numbers") from None
    except UnicodeEncodeError:
        raise JobError(f"{place} has half a character (a surrogate)", "use whole characters") from None


def points(method: settings.SampleMethod, *, num: int, dimensions: int, seed: int) -> NDArray[np.float64]:
    """Return (num, dimensions) numbers in [0, 1), the same for each seed. sobol: scrambled (Owen 1998)."""
    rng = np.random.Generator(np.random.PCG64(seed))
    if method == "random":
        return rng.random((num, dimensions))
    from scipy.stats import qmc  # takes a second

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The balance properties")  # only powers of two have them
        drawn: NDArray[np.float64] = qmc.Sobol(dimensions, rng=rng).random(num)
    return drawn


def lines_of(file: str, place: str, storage_options: Mapping[str, Any]) -> list[str]:
    """Return the lines of a file, a path or URL, without blank ones. Raises JobError."""
    shown = public_url(file)
    path = file.partition("?")[0] if "://" in file else file
    if not path.lower().endswith(".txt"):  # job.json may name files, and their lines go into records
        as_table = "use it as `table:`; its rows are rendered with each combination of the sweep"
        fix = "rename it" if formats.file_format(file) is None else as_table
        raise JobError(f"{place} is {shown}, which is not a .txt file", fix)
    check_url(file)
    keep_secrets([storage_options, file])
    try:
        if "://" not in file:
            content = read_regular(os.path.expanduser(file), _MAX_BYTES + 1)
        else:
            filesystem, path = fsspec.core.url_to_fs(file, **storage_options)
            filesystem.invalidate_cache()  # of listings, from an earlier look
            with filesystem.open(path, "rb") as opened:
                content = opened.read(_MAX_BYTES + 1)
    except Exception as error:  # stores have their own errors: botocore's and aiohttp's are not OSErrors
        reason, fix = why_unread(error, "check its path")
        reason = public_text(getattr(error, "strerror", None) or reason)
        raise JobError(f"{place} is {shown}, which cannot be read: {reason}", fix) from None
    if len(content) > _MAX_BYTES:
        raise JobError(f"{place} {shown} is longer than {_MAX_BYTES >> 20} MiB", "use a table")
    if encoding := formats.marked_encoding(content):
        raise JobError(f"{place} {shown} is {encoding}", formats.to_utf_8(encoding, shown))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start)
        line = content.splitlines()[number]
        why = formats.refused_text(line, formats.likely_encoding(content), shown)
        problem = f"line {number + 1} is {line.decode('utf-8', 'replace')[:_SHOWN]!r}, but {why.reason}"
        raise JobError(f"{place} {shown}: {problem}", why.fix) from None
    # `str.splitlines` also splits at U+2028, form feeds and others, which prompts contain.
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    if not lines:
        raise JobError(f"{place} {shown} is empty", "write a value on each line")
    if len(lines) > settings.MAX_VALUES:
        raise JobError(f"{place} {shown} has more than {settings.MAX_VALUES:,} lines", "use a table")
    return lines
