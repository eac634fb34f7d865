"""The rows that a training uses, and which of them form a batch.

Rows are Arrow columns: a million take about 300 MB and go to other processes unchanged. The rows of a batch
have one shape; the seed decides which rows (step, micro-batch, rank) gets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from framefleet.api.errors import JobError, Refused, TableError, count_text
from framefleet.api.models import FRAME_PARAMETERS, PipelineSpec
from framefleet.api.texts import canonical_json, parse_json
from framefleet.pipeline.errors import SHAPE_ORDER, shape_text
from framefleet.pipeline.model.specs.check import check_argument, check_frames
from framefleet.pipeline.rows.inputs.pictures import Described
from framefleet.pipeline.rows.tables.limits import limits
from framefleet.plugins.train.job import TrainSettings
from framefleet.plugins.train.task import Bucket, TrainingRow

_SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("video", pa.string()),
        ("sha256", pa.string()),
        ("first_frame", pa.int32()),
        ("arguments", pa.string()),  # canonical JSON
        ("num_frames", pa.int32()),  # of the bucket, as height and width
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("repeats", pa.int32()),
    ]
)
_OF_ROW = ("index", "video", "sha256", "first_frame", "repeats")
_SIZE = ("num_frames", "height", "width")
# Arguments that decide how long embeddings are, or are one number for all rows of a forward (LTX).
ALIKE = ("max_sequence_length", "frame_rate")
_PART_ROWS = 4096  # how many wait as Python values
_MAX_BYTES = 8 << 30  # in memory, as all workers hold them; some 25 million rows of ordinary prompts


class TrainingRows:
    """Rows in table order, without refused ones: so a position is not an index in the table."""

    def __init__(self, rows: Iterable[TrainingRow]) -> None:
        batches, size = [], 0
        waiting: list[dict[str, Any]] = []
        for row in rows:
            waiting.append(
                {name: getattr(row, name) for name in _OF_ROW}
                | {name: getattr(row.bucket, name) for name in _SIZE}
                | {"arguments": canonical_json(dict(row.arguments))}
            )
            if len(waiting) == _PART_ROWS:
                batches.append(pa.RecordBatch.from_pylist(waiting, _SCHEMA))
                waiting, size = [], size + batches[-1].nbytes
                if size > _MAX_BYTES:
                    raise TableError(
                        f"over {_MAX_BYTES >> 30} GiB of memory for the first {count_text(row.index, 'row')}",
                        "use fewer rows, or shorter prompts",
                    )
        batches.append(pa.RecordBatch.from_pylist(waiting, _SCHEMA))
        self._table: pa.Table = pa.Table.from_batches(batches, _SCHEMA).combine_chunks()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, position: int) -> TrainingRow:
        if not 0 <= position < len(self):
            raise IndexError(position)
        (cells,) = self._table.slice(position, 1).to_pylist()
        bucket = Bucket(**{name: cells.pop(name) for name in _SIZE})
        return TrainingRow(**cells | {"arguments": parse_json(cells["arguments"])}, bucket=bucket)

    def buckets(self) -> list[Bucket]:
        """Return the bucket of every row, each value once in memory, with the conditions that rows share."""
        buckets_by_key: dict[tuple[int, int, int, str], Bucket] = {}
        columns = [self._table[name].to_pylist() for name in _SIZE]
        conditions = map(_alike, self._table["arguments"].to_pylist())
        names = (*_SIZE, "conditions")
        return [
            buckets_by_key.setdefault(values, Bucket(**dict(zip(names, values, strict=True))))
            for values in zip(*columns, conditions, strict=True)
        ]

    def repeats(self) -> Sequence[int]:
        return self._table["repeats"].to_pylist()

    def digest(self, *, leave_out: Sequence[str] = ()) -> str:
        """Return SHA-256 over what decides the training: contents of videos, arguments and so on, in order.

        Not over where the videos lie, nor over the columns to leave out.
        """
        left_out = {"index", "video", *leave_out}
        if not any(self._table["first_frame"].to_pylist()):  # trainings that were begun without it continue
            left_out.add("first_frame")
        names = [name for name in _SCHEMA.names if name not in left_out]
        digest = hashlib.sha256()
        for batch in self._table.select(names).to_batches(_PART_ROWS):
            digest.update(canonical_json(batch.to_pylist()).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def _alike(arguments: str) -> str:
    """Return those of a row's arguments that a forward has once, as canonical JSON; "" for none."""
    if not any(name in arguments for name in ALIKE):
        return ""
    conditions = {name: value for name, value in parse_json(arguments).items() if name in ALIKE}
    return canonical_json(conditions) if conditions else ""


_MAX_ROWS = 200_000_000  # in an epoch; each takes 16 bytes
Positions = npt.NDArray[np.int64]


def buckets_of(sizes: Sequence[Sequence[int]], spec: PipelineSpec) -> tuple[Bucket, ...]:
    """Return the buckets of `train.sizes`, or the one of the model's native size.

    Raises JobError for what the model does not render.
    """
    buckets = [Bucket(num_frames=t, height=h, width=w) for t, h, w in sizes] or [_native(spec)]
    for bucket in buckets:
        for name, refused in _problems(bucket, spec):
            raise JobError(
                f"train.sizes has [{bucket.num_frames}, {bucket.height}, {bucket.width}], "
                f"but {name} {getattr(bucket, name)} will not do: {refused.reason}",
                refused.fix,
            )
    return tuple(dict.fromkeys(buckets))


def choose_bucket(buckets: Sequence[Bucket], video: Described) -> Bucket | Refused:
    """Return the bucket that keeps most of a video that fills it, or why it fills none.

    What it keeps: pixels of the bucket times the share of the picture that is left after cropping.
    """
    filled = [
        bucket
        for bucket in buckets
        if video.num_frames >= bucket.num_frames
        and video.height >= bucket.height
        and video.width >= bucket.width
    ]
    if filled:

        def kept_pixels(bucket: Bucket) -> float:
            ratio = (video.width * bucket.height) / (video.height * bucket.width)
            return bucket.num_frames * bucket.height * bucket.width * min(ratio, 1 / ratio)

        return max(filled, key=lambda bucket: (kept_pixels(bucket), bucket))
    return Refused(
        reason=f"it is {shape_text(video.num_frames, video.height, video.width)} ({SHAPE_ORDER}), and "
        f"training needs {' or '.join(map(str, sorted(buckets)))}",
        fix=f"use a longer or larger one, or set train.sizes to [[{video.num_frames}, {video.height}, "
        f"{video.width}]] or less",
    )


def _native(spec: PipelineSpec) -> Bucket:
    arguments = spec.defaults()
    frames = next((arguments[name] for name in FRAME_PARAMETERS if name in arguments), None)
    height, width = arguments.get("height"), arguments.get("width")
    if spec.kind == "image":
        frames = 1
    if not (isinstance(frames, int) and isinstance(height, int) and isinstance(width, int)):
        raise JobError(
            f"{spec.class_name} of this model has no native size",
            "set `train: {sizes: [[num_frames, height, width]]}`",
        )
    return Bucket(num_frames=frames, height=height, width=width)


def _problems(bucket: Bucket, spec: PipelineSpec) -> Iterator[tuple[str, Refused]]:
    if spec.kind == "image" and bucket.num_frames != 1:
        yield "num_frames", Refused(reason=f"{spec.class_name} renders images", fix="use 1")
    sides = {"height": bucket.height, "width": bucket.width}
    for name, pixels in sides.items():
        checked = check_argument(name, pixels, "int", spec)
        if isinstance(checked, Refused):
            yield name, checked
    frames = check_frames(bucket.num_frames, spec)
    if isinstance(frames, Refused):
        yield "num_frames", frames
    yield from ((name, refused) for name, refused in limits(spec, sides) if name in sides)


class Batches:
    """A pure function of its arguments, so checkpoints need none of it.

    All rows of a batch are of one bucket. An epoch uses each row as often as its `repeats` says, except those
    that don't fill a batch or step. Each epoch has another order, and leaves out others. Without repeats, the
    batches of a step have no row in common.
    """

    def __init__(self, rows: TrainingRows, settings: TrainSettings, *, world_size: int) -> None:
        """Raises TableError where one step takes more rows than there are."""
        batch_size, accumulation = settings.batch_size, settings.accumulation
        self._batch_size, self._seed, self._world_size = batch_size, settings.seed, world_size
        self._groups = _groups(rows.buckets(), rows.repeats())
        self.batches_per_step = accumulation * world_size
        full = sum(len(rows) // batch_size for rows in self._groups.values())
        self.steps_per_epoch = full // self.batches_per_step
        self.rows_per_step = batch_size * self.batches_per_step
        if not self.steps_per_epoch:
            factors = {"batch_size": batch_size, "accumulation": accumulation}
            words = " x ".join(f"{name} {n}" for name, n in factors.items() if n > 1 or name[0] == "b")
            workers = f" x {world_size} workers" if world_size > 1 else ""
            sizes = ", ".join(f"{len(rows)} of {bucket}" for bucket, rows in sorted(self._groups.items()))
            of_size = f" ({sizes}; a batch is of one size)" if len(self._groups) > 1 else ""
            raise TableError(
                f"one step takes {count_text(self.rows_per_step, 'row')} ({words}{workers}), "
                f"and there are {sum(map(len, self._groups.values())):,}{of_size}",
                "add rows, or make train.batch_size smaller",
            )
        self._epoch = lru_cache(maxsize=2)(self._shuffled)  # of a large table an epoch takes a second

    def rows_of(self, step: int, micro: int, rank: int) -> list[int]:
        """Return the positions of the rows; all numbers from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        number = place * self.batches_per_step + micro * self._world_size + rank
        return self._epoch(epoch)[number].tolist()

    def unused(self) -> dict[Bucket, int]:
        """Return how many rows are in buckets with fewer rows than a batch: these are never used."""
        sizes = {bucket: len(rows) for bucket, rows in self._groups.items()}
        return {bucket: count for bucket, count in sizes.items() if count < self._batch_size}

    def _shuffled(self, epoch: int) -> Positions:
        """Return all batches of an epoch, in order: (batch, row in it)."""
        random = np.random.default_rng((self._seed, epoch))
        parts = []
        for bucket in sorted(self._groups):
            rows = random.permutation(self._groups[bucket])
            full = len(rows) // self._batch_size * self._batch_size
            parts.append(rows[:full].reshape(-1, self._batch_size))
        return random.permutation(np.concatenate(parts), axis=0)


def _groups(buckets: Sequence[Bucket], repeats: Sequence[int]) -> dict[Bucket, Positions]:
    """Return the positions of each bucket's rows, in order, each as often as it is repeated."""
    counts = np.array(repeats, dtype=np.int64)
    if counts.sum() > _MAX_ROWS:
        raise TableError(
            f"an epoch would have {count_text(counts.sum(), 'row')}, and {_MAX_ROWS:,} are the most",
            "lower the table's repeats: their proportions decide",
        )
    groups: dict[Bucket, list[int]] = {}
    for position, bucket in enumerate(buckets):
        groups.setdefault(bucket, []).append(position)
    return {
        bucket: np.repeat(np.array(rows, dtype=np.int64), counts[rows]) for bucket, rows in groups.items()
    }
