"""From `sweep:` to its factors: columns of values that vary together, each with how many there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.model.specs.refused import shown
from framefleet.pipeline.model.specs.signature import ArgumentKind
from framefleet.pipeline.rows.sweeps.lines import lines_of
from framefleet.pipeline.rows.sweeps.numbers import MAX_VALUES, count, numbers_of, short_range
from framefleet.pipeline.rows.sweeps.samples import drawn_between, drawn_from, points
from framefleet.pipeline.rows.sweeps.settings import Spread, Sweep

TEXT_KINDS: tuple[ArgumentKind, ...] = ("str", "image", "video", "model")
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The values of one argument, or of a word; a range is never written out."""

    name: str
    kind: ArgumentKind | None
    values: range | pa.Array

    @property
    def type(self) -> pa.DataType:
        return pa.int64() if isinstance(self.values, range) else self.values.type

    def take(self, indices: Indices) -> pa.Array:
        if isinstance(self.values, range):
            return pa.array(self.values.start + indices * self.values.step, pa.int64())
        return self.values.take(pa.array(indices))

    def some(self) -> list[Any]:
        """Return the values to look at before any row: all, or the ends of a range."""
        return (
            [self.values[0], self.values[-1]] if isinstance(self.values, range) else self.values.to_pylist()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """Columns of equal length that vary together. unit: what one of `num` is called."""

    columns: tuple[Column, ...]
    num: int
    unit: str

    def __str__(self) -> str:
        return f"{self.num:,} {_several(self.unit) if self.num > 1 else self.unit}"


def factors_of(
    sweep: Sweep, kinds: Mapping[str, ArgumentKind], storage_options: Mapping[str, Any]
) -> tuple[Factor, ...]:
    """Return what is crossed, in the order of the job, and then what is drawn. Raises JobError.

    kinds: of all arguments; other names are words.
    """
    reading = _Reading(kinds, storage_options)
    crossed = [
        Factor(columns=(column,), num=count(column.values), unit=name.removeprefix("num_").replace("_", " "))
        for name, written in sweep.factors.items()
        for column in [reading.column(name, written, f"sweep.{name}")]
    ]
    return (*crossed, *reading.drawn(sweep))


@dataclass(frozen=True, slots=True)
class _Reading:
    kinds: Mapping[str, ArgumentKind]
    storage_options: Mapping[str, Any]

    def column(self, name: str, written: Spread, place: str) -> Column:
        kind = self.kinds.get(name)
        values = self._values(written, kind, place)
        if not isinstance(values, range):
            values = _array(values, kind, place)
        return Column(name=name, kind=kind, values=values)

    def drawn(self, sweep: Sweep) -> Iterator[Factor]:
        """Yield the one factor of what is drawn, if anything is."""
        if (sample := sweep.sample) is None:
            return
        over = sample.over
        found = points(sample.method, num=sample.num, dimensions=len(over), seed=sample.seed)
        columns = tuple(
            self._drawn_column(name, written, found[:, number])
            for number, (name, written) in enumerate(over.items())
        )
        yield Factor(
            columns=columns, num=sample.num, unit=f"{sample.method} sample of {', '.join(sample.over)}"
        )

    def _drawn_column(self, name: str, written: Spread, places: NDArray[np.float64]) -> Column:
        kind, place = self.kinds.get(name), f"sweep.sample.over.{name}"
        is_whole = kind == "int"
        is_log = written.scale == "log"
        if written.is_range and not (written.step or written.num) and (is_log or not is_whole):
            values: list[Any] = drawn_between(places, written, is_whole=is_whole)
        else:
            values = drawn_from(places, self._values(written, kind, place))
        return Column(name=name, kind=kind, values=_array(values, kind, place))

    def _values(self, written: Spread, kind: ArgumentKind | None, place: str) -> range | list[Any]:
        if written.file is not None:
            return lines_of(written.file, place, self.storage_options)
        if written.is_range:
            return numbers_of(written, place, is_whole=kind == "int")
        listed = written.values or []
        if kind in (*TEXT_KINDS, "bool"):
            return listed
        ranges = [short_range(value, place) for value in listed]
        if len(ranges) == 1 and ranges[0] is not None:
            return ranges[0]
        if sum(count(found) for found in ranges if found) > MAX_VALUES:
            raise JobError(f"{place} lists more than {MAX_VALUES:,} values", "give one range, as 0-63")
        return [one for value, found in zip(listed, ranges, strict=True) for one in found or [value]]


def _array(values: list[Any], kind: ArgumentKind | None, place: str) -> pa.Array:
    """Return a column as tables have it: numbers where all are, or else text, which is read as in CSV."""
    if kind in TEXT_KINDS and (wrong := [one for one in values if not isinstance(one, str | None)]):
        raise JobError(f"{place} has {shown(wrong[0])}, which is no text", "put it in quotes")
    types = {type(value) for value in values} - {type(None)}
    try:
        if types in ({bool}, {int}, {float}, {int, float}):
            return pa.array(values, None if types != {int, float} else pa.float64())
        return pa.array([_text(value) for value in values], pa.string())
    except (OverflowError, pa.ArrowInvalid):
        raise JobError(f"{place} has a number beyond 64 bits", "use smaller numbers") from None
    except UnicodeEncodeError:
        raise JobError(f"{place} has half a character", "use whole characters") from None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str | None) else canonical_json(value)


def _several(unit: str) -> str:
    """Return the plural of a name: the sample's own word stands before the names that it is of."""
    first, of, names = unit.partition(" of ")
    return f"{first}{'' if first.endswith('s') else 's'}{of}{names}"
