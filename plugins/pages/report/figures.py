"""Sum records, some thousand at a time, by worker, time, batch size, shape and environment.

Records are not trusted: impossible numbers are ignored, and the number of names is limited.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.api.texts import canonical_json, parse_object
from framefleet.pipeline.render.audit.verdict import AUDIT, EQUAL, NOT_COMPARED, PLAINLY, UNREPEATABLE

COLUMNS = [
    *("worker", "node", "started_at", "finished_at", "batch_size", "encode_s", "compute_s"),
    *("write_s", "idle_s", "idle_causes", "bytes", "duration_s", "num_frames", "height", "width"),
    *("model", "model_digest", "license", "model_name", "environment", "peak_memory_bytes"),
]
COMPUTE = "compute_s"  # a row's share of its worker's time
_SUMMED = ("busy_s", "idle_s", "encode_s", "write_s")
MAX_CAUSES = 100  # of idle time
MAX_NAMES = 2000  # workers, shapes, environments: what is more is one `THE_REST`
THE_REST = "(others)"
_MAX_S = 1e9  # thirty years: what takes longer is no measurement
_MOMENTS = (946_684_800, 4_102_444_800)  # the years 2000 to 2100
_MAX_BATCH = 4096
_REMARKS = (EQUAL, PLAINLY, UNREPEATABLE)
# Each divides the next, so that bins are joined and never split.
_WIDTHS_S = (1, 2, 10, 30, 60, 120, 600, 1800, 3600, 7200, 21_600, 86_400, 604_800, 6_048_000, 60_480_000)
MAX_BINS = 120  # columns of three points each
_FEW_BINS, _ROWS_EACH = 12, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Number of rows finished in the `Timeline.width_s` seconds from `start` on."""

    start: datetime
    rows: int


class Timeline:
    """Counts moments, given as seconds since 1970."""

    def __init__(self) -> None:
        self.width_s = _WIDTHS_S[0]
        self._counts: Counter[int] = Counter()

    def add(self, moments: Iterable[int]) -> None:
        self._counts.update(moment // self.width_s for moment in moments)
        self._widen(MAX_BINS)

    def settle(self) -> None:
        """Widen bins until they hold some rows, for a chart that is no comb."""
        self._widen(max(_FEW_BINS, self._counts.total() // _ROWS_EACH))

    def bins(self) -> tuple[Bin, ...]:
        """Return all from the first to the last, empty ones too."""
        numbers = range(min(self._counts), max(self._counts) + 1) if self._counts else ()
        return tuple(
            Bin(start=datetime.fromtimestamp(number * self.width_s, UTC), rows=self._counts[number])
            for number in numbers
        )

    def _widen(self, most: int) -> None:
        """Widen bins until there are at most `most`."""
        while self._counts and max(self._counts) - min(self._counts) >= most and self.width_s < _WIDTHS_S[-1]:
            before_s, self.width_s = self.width_s, _WIDTHS_S[_WIDTHS_S.index(self.width_s) + 1]
            wider: Counter[int] = Counter()
            for number, count in self._counts.items():
                wider[number * before_s // self.width_s] += count
            self._counts = wider


@dataclass(slots=True, kw_only=True)
class WorkerTime:
    """What one worker did."""

    name: str
    node: str
    rows: int = 0
    busy_s: float = 0.0  # its model computed
    idle_s: float = 0.0
    encode_s: float = 0.0  # of text encoders
    write_s: float = 0.0  # background threads encoded and uploaded clips
    idle: dict[str, float] = field(default_factory=dict)  # seconds by cause


class Figures:
    """Sums of all records that it was given."""

    def __init__(self) -> None:
        self.num_rows = self.num_bytes = 0
        self.clip_s = self.batch_sum = 0.0
        self.peak_memory_bytes = 0
        self.started: int | None = None
        self.finished: int | None = None
        self.timeline = Timeline()
        self.batches: Counter[int] = Counter()
        self.shapes: Counter[str] = Counter()
        self.models: Counter[tuple[str, str, str, str]] = Counter()
        self.model_s: dict[tuple[str, str, str, str], float] = {}  # in which each computed, as recorded
        self.environments: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()
        self.workers: dict[tuple[str, str], WorkerTime] = {}

    def add(self, table: pa.Table) -> None:
        """Take these records: of `COLUMNS`."""
        self.num_rows += len(table)
        self.num_bytes += int(pc.sum(positive(table["bytes"])).as_py() or 0)
        self.clip_s += float(pc.sum(positive(table["duration_s"])).as_py() or 0)
        self.peak_memory_bytes = max(self.peak_memory_bytes, pc.max(table["peak_memory_bytes"]).as_py() or 0)
        started, finished = _moments(table["started_at"]), _moments(table["finished_at"])
        self.timeline.add(finished)
        self.started = min(filter(None, [self.started, *started]), default=None)
        self.finished = max(filter(None, [self.finished, *finished]), default=None)
        sizes = positive(table["batch_size"])
        self.batch_sum += float(pc.sum(pc.min_element_wise(sizes, _MAX_BATCH)).as_py() or 0)
        counts = pc.value_counts(pc.round(pc.min_element_wise(sizes, float(_MAX_BATCH))).combine_chunks())
        self.batches.update({int(one["values"].as_py()): one["counts"].as_py() for one in counts})
        self._add_kinds(table)
        self._add_workers(table)

    def _add_kinds(self, table: pa.Table) -> None:
        for num_frames, height, width, rows in _grouped(table, ["num_frames", "height", "width"]):
            shape = "sound alone" if height is None else f"{num_frames} x {height} x {width}"
            tally(self.shapes, shape, rows, THE_REST)
        of_model = ["model", "model_digest", "license", "model_name"]
        spent = table.select(of_model).append_column(COMPUTE, positive(table[COMPUTE]))
        sums = spent.group_by(of_model).aggregate([(COMPUTE, "sum"), ([], "count_all")])
        for row in sums.to_pylist():
            key = (row["model"], row["model_digest"], row["license"] or "", row["model_name"] or "")
            key = tally(self.models, key, row["count_all"], (THE_REST, "", "", ""))
            self.model_s[key] = self.model_s.get(key, 0.0) + (row[f"{COMPUTE}_sum"] or 0.0)
        for environment, rows in _grouped(table, ["environment"]):
            # The environment without the remark on the audit.
            values, place, remark = parse_object(environment), environment, None
            if AUDIT in values:
                remark, place = values.pop(AUDIT), canonical_json(values)
            tally(self.environments, place, rows, "{}")
            starts = (start for start in _REMARKS if str(remark).startswith(start))
            self.remarks[next(starts, NOT_COMPARED)] += rows

    def _add_workers(self, table: pa.Table) -> None:
        measured = {name: positive(table[COMPUTE if name == "busy_s" else name]) for name in _SUMMED}
        keyed = pa.table({"worker": table["worker"], "node": table["node"], **measured})
        wanted = [*((name, "sum") for name in _SUMMED), ("encode_s", "count")]
        sums = keyed.group_by(["worker", "node"]).aggregate(wanted)
        for row in sums.to_pylist():
            worker = self._worker(row["worker"], row["node"])
            worker.rows += row["encode_s_count"]
            for name in _SUMMED:
                setattr(worker, name, getattr(worker, name) + (row[f"{name}_sum"] or 0.0))
        columns = (table[name].to_pylist() for name in ("worker", "node", "idle_causes"))
        for name, node, causes in zip(*columns, strict=True):
            sums = self._worker(name, node).idle
            for cause, value in list(parse_object(causes or "").items())[:20]:
                is_sound = isinstance(value, int | float) and 0 <= value < _MAX_S
                if is_sound and (cause[:40] in sums or len(sums) < MAX_CAUSES):
                    sums[cause[:40]] = sums.get(cause[:40], 0.0) + float(value)

    def _worker(self, name: str, node: str) -> WorkerTime:
        key = (name, node)
        if key not in self.workers and len(self.workers) >= MAX_NAMES:
            key = (THE_REST, "")
        return self.workers.setdefault(key, WorkerTime(name=key[0], node=key[1]))


def positive(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return numbers as they may be: none, negative and infinite ones as 0."""
    numbers = pc.fill_null(column.cast(pa.float64(), safe=False), 0.0)
    is_sound = pc.and_(pc.greater_equal(numbers, 0.0), pc.is_finite(numbers))
    limit = float("inf") if pa.types.is_integer(column.type) else _MAX_S
    return pc.min_element_wise(pc.if_else(is_sound, numbers, 0.0), limit)


def _moments(column: pa.ChunkedArray) -> list[int]:
    """Return the times that can be, in whole seconds."""
    seconds = pc.divide(column.cast(pa.int64()).cast(pa.float64(), safe=False), 1e6)  # from microseconds
    first, last = _MOMENTS
    is_sound = pc.and_(pc.greater_equal(seconds, first), pc.less(seconds, last))
    return [int(moment) for moment in seconds.filter(is_sound).to_pylist()]


def _grouped(table: pa.Table, names: list[str]) -> list[tuple[Any, ...]]:
    """Return what these columns say together, and in how many rows."""
    counted = table.select(names).group_by(names).aggregate([([], "count_all")])
    return list(zip(*(counted[name].to_pylist() for name in [*names, "count_all"]), strict=True))


def tally(counter: Counter[Any], name: Any, rows: int, others: Any) -> Any:
    """Count rows, and return as what: those of too many names are all `others`."""
    name = name if name in counter or len(counter) < MAX_NAMES else others
    counter[name] += rows
    return name
