"""Compare two clips of the same row, and keep the distances for later runs."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass

import pyarrow as pa

from framefleet.api.outputs import Output, Store, rows_of
from framefleet.plugins.audit.distance import NO_DISTANCE, Distance, distance_of
from framefleet.plugins.audit.pairs import RowPair
from framefleet.plugins.columns.fill import Damaged, clip_frames

log = logging.getLogger(__name__)

_DISTANCES = "distances"  # folder of an audit
_CLIPS = ("row_id", "media_sha256", "other_media_sha256")
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _CLIPS),
        *((name, pa.float64()) for name in Distance.__dataclass_fields__),
        ("is_equal", pa.bool_()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedPair:
    """The result for one row. problem: why there is no distance; such a row counts as off."""

    distance: Distance | None = None
    is_equal: bool = False  # bit-exact before encoding
    problem: str = ""

    def is_off(self, levels: float) -> bool:
        return self.distance is None or self.distance.max_levels > levels


class KeptDistances:
    """The distances in the folder of an audit, of earlier runs and this one."""

    def __init__(self, folder: Store) -> None:
        output = Output(folder)
        self._writer = output.writer(_DISTANCES, _SCHEMA)
        self._before: dict[tuple[str | None, ...], ComparedPair] = {}
        for table in output.tables(_DISTANCES, _SCHEMA):
            for row in rows_of(table, output.url):
                distance = Distance(**{name: row[name] for name in Distance.__dataclass_fields__})
                clips = tuple(row[name] for name in _CLIPS)
                self._before[clips] = ComparedPair(distance=distance, is_equal=row["is_equal"])

    def of(self, pair: RowPair) -> ComparedPair | None:
        """Return an earlier run's result for these two clips."""
        return self._before.get(_clips(pair))

    def add(self, pair: RowPair, outcome: ComparedPair) -> None:
        """Write a distance, unless it is known. Clips that could not be compared are tried again later."""
        if outcome.distance is None or self.of(pair):
            return
        clips = dict(zip(_CLIPS, _clips(pair), strict=True))
        self._writer.add(None, {**clips, **asdict(outcome.distance), "is_equal": outcome.is_equal})
        if self._writer.due(time.monotonic()):
            self._writer.flush()

    def flush(self) -> None:
        self._writer.flush()


def _clips(pair: RowPair) -> tuple[str | None, ...]:
    ours, theirs = pair
    return ours["row_id"], ours["media_sha256"], theirs["media_sha256"] if theirs else None


def compare_clips(our_store: Store, their_store: Store, pair: RowPair) -> ComparedPair:
    """Read the clips of two untrusted records, and return their distance."""
    ours, theirs = pair
    if theirs is None:
        return ComparedPair(problem="not rendered there")
    frames = []
    for store, record, where in ((our_store, ours, "here"), (their_store, theirs, "there")):
        if record["frames_sha256"] is None:
            return ComparedPair(problem=f"sound only {where}")
        try:
            frames.append(clip_frames(store, record))
        except Damaged as error:
            log.warning("row %s: %s", record["row_id"], error)
            return ComparedPair(problem=f"damaged {where}")
    if frames[0].shape != frames[1].shape:
        return ComparedPair(problem="different size or number of frames")
    distance = distance_of(*frames)
    # Digests are of frames before encoding. If these are equal, files can only differ by their codecs.
    formats = {str(record["path"]).partition(".")[2] for record in pair if record}
    is_equal = ours["frames_sha256"] == theirs["frames_sha256"]
    is_equal &= distance.max_levels == 0 or len(formats) == 2
    return ComparedPair(distance=NO_DISTANCE if is_equal else distance, is_equal=is_equal)
