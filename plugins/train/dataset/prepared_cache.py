"""The prepared rows: computed once, kept in the output, read back in any order.

They are in shards, safetensors files of some hundred rows, so a killed run loses little. Tensors are named by
their digest (docs/why/training.md); JSON in the metadata says which belong to a row.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypeVar

import numpy as np
import safetensors.torch
import torch
from PIL import Image, ImageOps
from pydantic import Field, TypeAdapter
from safetensors import SafetensorError, safe_open
from torch import Tensor

from framefleet.api.clips import Frames, ReadAhead
from framefleet.api.engines import file_kind, frames_of, open_image
from framefleet.api.errors import InputError, JobError, TableError
from framefleet.api.outputs import Store, read_json
from framefleet.api.texts import canonical_json, parse_json
from framefleet.pipeline.model.class_cache import cache_folder
from framefleet.pipeline.render.fused.calls import digest_of
from framefleet.pipeline.rows.inputs.access import naming
from framefleet.plugins.train.dataset.batches import TrainingRows
from framefleet.plugins.train.task import Bucket, Prepared, TrainingRow, TrainingTask

_FOLDER = "prepared"
SHARD_BYTES = 64 << 20  # large enough for object stores, small enough to be in memory and lost by a kill
MAX_SHARD_ROWS = 512
# Mapped, not in memory; each is one of the usual 1,024 files that a process may have open, and those that lie
# in an object store take 8 GiB of a local disk.
OPEN_SHARDS = 128
MEMORY_BYTES = 1 << 30  # of rows that are not kept in the output
TEXT_BYTES = 4096  # of the token ids of a row, as Python holds them
FRAMES_AHEAD = 4  # videos that are decoded while one is encoded; 81 frames of 480 x 832 are 97 MB
_METADATA = "framefleet"  # one entry: several are written in any order


@dataclass(frozen=True, slots=True)
class _Plan:
    rows_per_shard: Annotated[int, Field(ge=1, le=MAX_SHARD_ROWS)]


_PLAN = TypeAdapter(_Plan)


class PreparedRows:
    """`rows[i]` prepared by the task: from the output, or, where the task keeps nothing, made on the fly.

    identity: what decides them besides the rows, as the model's files and the part that is trained; JSON
    values. Equal identity and rows, equal files, so several trainings may keep them in one place. For several
    threads, once `prepare` has returned.
    """

    def __init__(
        self,
        rows: TrainingRows,
        task: TrainingTask,
        read: Callable[[str], bytes],
        *,
        store: Store,
        identity: Mapping[str, Any],
    ) -> None:
        """read: gives the bytes at a path or URL, as `Inputs.read`. store: where what is prepared is kept."""
        self._rows, self._task, self._files = rows, task, ReadAhead(read)
        self._store = store
        content = canonical_json({**identity, "rows": rows.digest(leave_out=["repeats"])})
        self._folder = f"{_FOLDER}/{hashlib.sha256(content.encode()).hexdigest()[:16]}"
        sizes = [bucket.num_frames * bucket.height * bucket.width for bucket in rows.buckets()]
        self._largest = sizes.index(max(sizes))
        # What a task keeps nothing of are frames, or token ids.
        self._from_memory = lru_cache(MEMORY_BYTES // max(3 * max(sizes), TEXT_BYTES))(self._made)
        self._lock = threading.Lock()  # of what follows
        self._shard = lru_cache(OPEN_SHARDS)(self._open)
        self._rows_per_shard: int | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> Prepared:
        """Return a row; raises TableError where its video changed since it was surveyed."""
        if not self._task.keeps_prepared:
            return self._from_memory(position)
        with self._lock:
            number, row = divmod(position, self._plan())
            return self._shard(number)[row]

    def some(self, count: int) -> Iterator[Prepared]:
        """Yield at most `count` rows, from all over the table."""
        step = -(-len(self) // count)
        return (self[position] for position in range(0, len(self), step))

    def prepare(
        self, *, rank: int = 0, world_size: int = 1, progress: Callable[[int], None] | None = None
    ) -> None:
        """Make this rank's share of what is not there yet; rows may be read when all ranks have returned.

        progress: is called with how many of this rank's rows are there.
        """
        if not self._task.keeps_prepared:
            return
        size, there, done = self._plan(), set(self._store.list(self._folder)), 0
        for number in range(rank, -(-len(self) // size), world_size):
            positions = range(number * size, min((number + 1) * size, len(self)))
            if self._path(number) not in there:
                rows = read_ahead(self._row, positions, count=FRAMES_AHEAD)
                self._store.write(self._path(number), shard_bytes([self._prepared(*row) for row in rows]))
            done += len(positions)
            if progress:
                progress(done)

    def _path(self, number: int) -> str:
        return f"{self._folder}/{number:06d}.safetensors"

    def _open(self, number: int) -> Shard:
        path = self._path(number)
        if "://" not in (place := self._store.url_of(path)):
            return Shard(Path(place), place)
        cache = cache_folder() / "prepared"
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache) as folder:
            copy = Path(folder, "shard.safetensors")
            self._store.download(path, copy)
            return Shard(copy, place)  # mapped: it stays readable without its name

    def _plan(self) -> int:
        """Return the number of rows in a shard, as it was settled when the first one was made."""
        if self._rows_per_shard is None:
            path = f"{self._folder}/plan.json"
            fix = f"delete {self._store.url_of(self._folder)}, and run the same command"
            try:
                self._rows_per_shard = read_json(self._store, path, _PLAN, fix=fix).rows_per_shard
            except FileNotFoundError:
                # As many of the largest row as fill a shard: every rank comes to the same number.
                size = max(1, sum(tensor.nbytes for tensor in self._made(self._largest).values()))
                self._rows_per_shard = max(1, min(MAX_SHARD_ROWS, SHARD_BYTES // size))
                content = canonical_json({"rows_per_shard": self._rows_per_shard})
                self._store.create(path, content.encode())
        return self._rows_per_shard

    def _made(self, position: int) -> Prepared:
        return self._prepared(*self._row(position))

    def _row(self, position: int) -> tuple[TrainingRow, Frames | None]:
        row = self._rows[position]
        if row.video and row.first_frame:  # other rows have other parts of the file
            self._files.start(row.video)
        return row, read_frames(row, self._files.read)

    @torch.no_grad()
    def _prepared(self, row: TrainingRow, frames: Frames | None) -> Prepared:
        return self._task.prepare(row, frames)


T = TypeVar("T")


def read_ahead(load: Callable[[int], T], places: Iterable[int], *, count: int) -> Iterator[T]:
    """Yield `load(place)` for each of `places`, in order, while threads load the next `count`."""
    remaining = iter(places)
    with ThreadPoolExecutor(count, thread_name_prefix="read-ahead") as threads:
        waiting = deque(threads.submit(load, place) for place in islice(remaining, count))
        while waiting:
            first = waiting.popleft()
            waiting.extend(threads.submit(load, place) for place in islice(remaining, 1))
            yield first.result()


# The first frames of the file or part are taken, as they are stored: a model learns motion at the rate of the
# files. Each picture is resized, with antialiasing, until it covers the bucket, and its middle is cut out.
def read_frames(row: TrainingRow, read: Callable[[str], bytes]) -> Frames | None:
    """Return uint8 RGB (T, H, W, 3) of the row's bucket; None where it has no video.

    read: gives the bytes at a path or URL. Raises TableError when they are not those that were surveyed.
    """
    if row.video is None:
        return None
    try:
        with naming("video", row.video):
            content = read(row.video)
            if hashlib.sha256(content).hexdigest() != row.sha256:
                raise InputError(
                    "the file has changed since the table was checked",
                    "restore the old file, or train into another output",
                )
            kind = file_kind(content)
            if kind is not None and kind.kind == "image" and kind.name != "gif":
                return fitted_frames([open_image(content)], row.bucket)
            with closing(frames_of(content, first=row.first_frame)) as pictures:
                return fitted_frames(pictures, row.bucket)
    except InputError as error:
        raise TableError(f"row {row.index}: {error.problem}", error.fix) from error


def fitted_frames(pictures: Iterable[Image.Image], bucket: Bucket) -> Frames:
    """Return the first pictures in the size of the bucket, which none is smaller than."""
    size = (bucket.width, bucket.height)
    chosen = islice(pictures, bucket.num_frames)  # one by one: those of a film may be gigabytes together
    return np.stack([np.asarray(ImageOps.fit(picture, size, Image.Resampling.BICUBIC)) for picture in chosen])


def shard_bytes(rows: Sequence[Prepared]) -> bytes:
    """Return the file; equal rows give equal bytes."""
    tensors: dict[str, Tensor] = {}
    names: list[dict[str, str]] = []
    for prepared in rows:
        names.append({})
        for name, tensor in prepared.items():
            names[-1][name] = digest = digest_of(tensor.detach().cpu()).hex()
            if digest not in tensors:  # a copy: safetensors takes no two tensors of one memory
                tensors[digest] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return safetensors.torch.save(tensors, {_METADATA: canonical_json(names)})


class Shard:
    """An open file; only the tensors that are asked for come into memory."""

    def __init__(self, path: Path, place: str) -> None:
        """place: what messages call it."""
        self._place = place
        try:
            self._file = safe_open(path, framework="pt")
            self._rows: list[dict[str, str]] = parse_json(self._file.metadata()[_METADATA])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise self._damaged(error) from error

    def __getitem__(self, row: int) -> Prepared:
        """Return what the row of that number in the file prepared."""
        try:
            return {name: self._file.get_tensor(digest) for name, digest in self._rows[row].items()}
        except (SafetensorError, LookupError, TypeError, AttributeError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> JobError:
        return JobError(
            f"{self._place} is not a file of prepared rows: {error}", "delete it: training writes it again"
        )
