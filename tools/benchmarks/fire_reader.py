"""From a bucket and a folder that a system wrote to the clips of each row, by boto3 and pyarrow alone."""

from __future__ import annotations

import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

CLIPS, RESULTS = "clips", "results"  # in a bucket
DONE = "done.txt"  # in a folder

Digests = Mapping[str, Sequence[str]]  # of the clips of each row; "" for one that is missing
_Clips = Iterator[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of rows. twice: or more. wrong: with a clip that is missing, or not that of the undisturbed run."""

    once: int
    twice: int
    never: int
    wrong: int


class Bucket:
    """The objects of a bucket. client: of boto3."""

    def __init__(self, client: Any, name: str) -> None:
        self._client, self._name = client, name
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=name)
        self._keys = {entry["Key"] for page in pages for entry in page.get("Contents", ())}

    def read(self, key: str) -> bytes | None:
        if key not in self._keys:
            return None
        return self._client.get_object(Bucket=self._name, Key=key)["Body"].read()

    def files(self, folder: str, suffix: str) -> list[str]:
        return sorted(key for key in self._keys if key.startswith(f"{folder}/") and key.endswith(suffix))

    def rows(self, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows of Parquet files."""
        for key in keys:
            yield from pq.read_table(io.BytesIO(self.read(key) or b"")).to_pylist()


def digests(system: str, bucket: Bucket, folder: Path) -> Digests:
    """Return the digests of each row's clips, as the output of a system has them."""
    clips = defaultdict(list)
    for row, clip in _READERS[system](bucket, folder):
        clips[row].append("" if clip is None else hashlib.sha256(clip).hexdigest())
    return clips


def counts(rows: Sequence[str], clips: Digests, undisturbed: Digests) -> Counts:
    numbers = [len(clips.get(row, ())) for row in rows]
    first = {row: digests[0] for row, digests in undisturbed.items()}
    return Counts(
        once=numbers.count(1),
        twice=sum(number > 1 for number in numbers),
        never=numbers.count(0),
        wrong=sum(any(not clip or clip != first.get(row) for clip in clips.get(row, ())) for row in rows),
    )


def _done_file(bucket: Bucket, folder: Path) -> _Clips:
    for row in (folder / DONE).read_text().split():
        yield row, bucket.read(f"{CLIPS}/{row}.mp4")


def _objects(bucket: Bucket, folder: Path) -> _Clips:
    for key in bucket.files(CLIPS, ".mp4"):
        yield Path(key).stem, bucket.read(key)


def _parquet(bucket: Bucket, folder: Path) -> _Clips:
    for row in bucket.rows(bucket.files(RESULTS, ".parquet")):
        yield row["id"], row["clip"]


def _delta_lake(bucket: Bucket, folder: Path) -> _Clips:
    """Of the files that the table's log names: others were never committed."""
    for key in bucket.files(f"{RESULTS}/_delta_log", ".json"):
        actions = [json.loads(line) for line in (bucket.read(key) or b"").splitlines()]
        added = [f"{RESULTS}/{action['add']['path']}" for action in actions if "add" in action]
        for row in bucket.rows(added):
            yield row["id"], row["clip"]


def _records(bucket: Bucket, folder: Path) -> _Clips:
    for record in bucket.rows(bucket.files(f"{RESULTS}/records", ".parquet")):
        yield record["id"], bucket.read(f"{RESULTS}/{record['path']}")


_READERS: Mapping[str, Callable[[Bucket, Path], _Clips]] = {
    "plain": _done_file,
    "accelerate": _objects,
    "ray": _parquet,
    "daft": _delta_lake,
    "framefleet": _records,
}
