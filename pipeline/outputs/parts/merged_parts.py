"""Parts that a reader had listed and that were merged meanwhile: their rows, as they were, from larger parts.

So what a reader listed is what it reads, however long that takes, while `compaction.py` goes on. A larger
part says in its metadata of which part each of its rows was; also of parts that went into those it merged.
"""

from __future__ import annotations

import base64
import json
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import TypeAdapter

from framefleet.pipeline.outputs.layout import RECORDS
from framefleet.pipeline.outputs.parts.part_file import (
    ORIGINS,
    PartGone,
    columns_of,
    metadata_of,
    read_part,
)
from framefleet.pipeline.outputs.parts.part_names import Part, part_of
from framefleet.pipeline.outputs.parts.seals import Sealed, is_sealed, live_parts, sealed_of
from framefleet.pipeline.outputs.stores.json_file import not_ours
from framefleet.pipeline.outputs.stores.store import Store

_MAX_BYTES = 64 << 20  # of what a part says of its rows, unpacked: four for each, and its parts


class MergedPart(NamedTuple):
    """A part that was merged: its rows are those whose places are from `first` to `end`.

    is_sorted: it was merged itself, so that its rows stand as they do in the larger part, not by place.
    """

    run: str
    number: int
    first: int
    end: int
    is_sorted: bool

    @property
    def path(self) -> str:
        """Where it was, but for the digest."""
        return f"{RECORDS}/part-{self.run}-{self.number:06d}.parquet"


_PARTS = TypeAdapter(list[MergedPart])
_Asked = tuple[str, pa.Schema | None, pa.Schema | None]


@dataclass(frozen=True, slots=True)
class MergedRows:
    """parts: that went into one. places: [rows], of each row, where it was when these stood in line."""

    parts: Sequence[MergedPart]
    places: npt.NDArray[np.int64]

    def rows_of(self, part: MergedPart) -> npt.NDArray[np.int64]:
        """Return where the rows of a part are, in its own order."""
        rows = np.flatnonzero((self.places >= part.first) & (self.places < part.end))
        return rows if part.is_sorted else rows[np.argsort(self.places[rows])]

    def to_text(self) -> str:
        """Return it as metadata: a small part of the part's own size, as neighbours stay near each other."""
        steps = np.diff(self.places, prepend=0).astype("<i4")
        content = json.dumps(self.parts).encode() + b"\n" + steps.tobytes()
        return base64.b64encode(zlib.compress(content)).decode()


def origins_of_merged(
    parts: Sequence[Part],
    sizes: Sequence[int],
    earlier: Sequence[MergedRows | None],
    order: npt.NDArray[np.int64],
) -> MergedRows:
    """Return where rows of a merged part are from.

    sizes: how many rows these parts have. earlier: of those that were merged before. order: of the rows.
    """
    found: list[MergedPart] = []
    places, start = [], 0
    for part, size, inner in zip(parts, sizes, earlier, strict=True):
        found.append(MergedPart(part.run, part.number, start, start + size, inner is not None))
        own = np.arange(size) if inner is None else inner.places
        for one in inner.parts if inner else ():
            found.append(MergedPart(one.run, one.number, start + one.first, start + one.end, one.is_sorted))
        places.append(start + own)
        start += size
    return MergedRows(found, np.concatenate(places)[order])


def origins_in(store: Store, path: str) -> MergedRows | None:
    """Return what a part says of where its rows are from; None for one that was not merged."""
    text = metadata_of(store, path).get(ORIGINS)
    if text is None:
        return None
    try:
        unpacked = zlib.decompressobj().decompress(base64.b64decode(text), _MAX_BYTES)
        head, _, steps = unpacked.partition(b"\n")
        parts = _PARTS.validate_json(head)
        return MergedRows(parts, np.frombuffer(steps, "<i4").astype(np.int64).cumsum())
    except (ValueError, zlib.error) as error:
        raise not_ours(store.url_of(path), f"it does not say where its rows are from: {error}") from error


class PartReader:
    """Reads parts of one listing, in any thread."""

    def __init__(self, store: Store, listed: Iterable[str]) -> None:
        self.store = store
        self._known = {*listed}
        self._places: dict[tuple[str, int], tuple[str, MergedPart]] = {}  # by run and number: where it is now
        self._last: tuple[_Asked, pa.Table, MergedRows] | None = None  # its neighbours are mostly there too
        self._lock = threading.Lock()

    def table(self, path: str, fields: pa.Schema | None, maybe: pa.Schema | None = None) -> pa.Table:
        """Do what `read_part` does."""
        try:
            return read_part(self.store, path, fields, maybe)
        except PartGone as gone:
            with self._lock:
                return self._from_larger(gone, path, fields, maybe)

    def columns(self, path: str) -> tuple[pa.Schema, dict[str, str]]:
        """Do what `columns_of` does."""
        try:
            return columns_of(self.store, path)
        except PartGone as gone:
            with self._lock:
                return columns_of(self.store, self._place_of(gone, path)[0])

    def _from_larger(
        self, gone: PartGone, path: str, fields: pa.Schema | None, maybe: pa.Schema | None
    ) -> pa.Table:
        while True:
            larger, origin = self._place_of(gone, path)
            try:
                whole, origins = self._whole((larger, fields, maybe))
            except PartGone:  # it went into a still larger one
                self._places = {key: place for key, place in self._places.items() if place[0] != larger}
            else:
                return whole.take(origins.rows_of(origin))

    def _whole(self, asked: _Asked) -> tuple[pa.Table, MergedRows]:
        """Return a merged part. asked: which, and which columns of it."""
        if not (self._last and self._last[0] == asked):
            table, origins = read_part(self.store, *asked), origins_in(self.store, asked[0])
            if origins is None or len(origins.places) != len(table):
                raise not_ours(self.store.url_of(asked[0]), "it does not say where its rows are from")
            self._last = asked, table, origins
        return self._last[1:]

    def _place_of(self, gone: PartGone, path: str) -> tuple[str, MergedPart]:
        """Return the part in which the rows of one are that is gone; raises `gone` where there is none."""
        part = part_of(path)
        key = (part.run, part.number) if part else ("", 0)
        if key not in self._places:
            self._look_for(key)
        if key not in self._places:
            raise gone
        return self._places[key]

    def _look_for(self, key: tuple[str, int]) -> None:
        """Find out what new parts are in place of, the newest first, until one is of this run and number."""
        new = [part for part in live_parts(self.store) if part.path not in self._known]
        for part, origins in _merged(self.store, new):
            self._known.add(part.path)
            self._places |= {(one.run, one.number): (part.path, one) for one in origins.parts}
            if key in self._places:
                return


def listed_then(store: Store, parts: Sequence[Part], then: Sealed) -> tuple[list[Part], int]:
    """Return the parts that were listed then, for a `PartReader`, and how many of these have other rows.

    parts: that there are now. Those of then are among them, or were merged into them.
    """
    found = [part for part in parts if is_sealed(part, then)]
    if sealed_of(found) == then:
        return found, len(parts) - len(found)
    num_older = len(found)
    for _, origins in _merged(store, parts):
        names = ((one, part_of(one.path)) for one in origins.parts)
        inner = [(one, part) for one, part in names if part and is_sealed(part, then)]
        found += [part for _, part in inner]
        num_older += sum(one.end - one.first for one, _ in inner) == len(origins.places)
    return sorted({*found}), len(parts) - num_older


def _merged(store: Store, parts: Sequence[Part]) -> Iterator[tuple[Part, MergedRows]]:
    """Yield those of these parts that are in place of others, the newest first, and of which."""
    plain: set[str] = set()  # runs of the rest
    for part in reversed(parts):
        if part.run not in plain:
            try:
                origins = origins_in(store, part.path)
            except PartGone:
                continue
            if origins is None:
                plain.add(part.run)
            else:
                yield part, origins
