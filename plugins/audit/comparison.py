"""Records of two clips of one row in, how far the clips are apart out. What earlier runs found is kept."""

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
    """What became of one row. problem: why there is no distance; such a row counts as off."""

    distance: Distance | None = None
    is_equal: bool = False  # bit for bit, as they were before codecs
    problem: str = ""

    def is_off(self, levels: float) -> bool:
        return self.distance is None or self.distance.max_levels > levels


class KeptDistances:
    """The distances in the folder of an audit: those of earlier runs, and those that are added."""

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
        """Return what an earlier run has found of these two clips."""
        return self._before.get(_clips(pair))

    def add(self, pair: RowPair, outcome: ComparedPair) -> None:
        """Have a distance written, unless it is known. What could not be compared is tried again."""
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
    """Return how far the clips of two records are apart. Reads both; the records may be anybody's."""
    ours, theirs = pair
    if theirs is None:
        return ComparedPair(problem="not rendered there")
    frames = []
    for store, record, where in ((our_store, ours, "here"), (their_store, theirs, "there")):
        if record["frames_sha256"] is None:
            return ComparedPair(problem=f"sound alone {where}")
        try:
            frames.append(clip_frames(store, record))
        except Damaged as error:
            log.warning("row %s: %s", record["row_id"], error)
            return ComparedPair(problem=f"damaged {where}")
    if frames[0].shape != frames[1].shape:
        return ComparedPair(problem="of another size or number of frames")
    distance = distance_of(*frames)
    # Digests are of what was encoded. Where that is equal, two files differ by their codecs alone, if at all.
    formats = {str(record["path"]).partition(".")[2] for record in pair if record}
    is_equal = ours["frames_sha256"] == theirs["frames_sha256"]
    is_equal &= distance.max_levels == 0 or len(formats) == 2
    return ComparedPair(distance=NO_DISTANCE if is_equal else distance, is_equal=is_equal)
