"""What every kind of shard does: takes rows with their clips, and is there when it is finished."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

import pyarrow as pa

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.stores.store import Store

Feature = Literal["video", "image", "audio", "clip"]
# As the `datasets` library sorts endings; clip: several, or what it has no name for.
_FEATURES: dict[Feature, frozenset[str]] = {
    "video": frozenset({".mp4", ".mkv", ".webm"}),
    "image": frozenset({".png", ".webp", ".gif"}),
    "audio": frozenset({".flac", ".wav"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where shards go and what they have in common. columns: of each row. added: those the export made.

    scratch: a folder for what is under way. copiers: threads, where a shard is many files.
    """

    place: Store
    columns: tuple[str, ...]
    added: frozenset[str]
    feature: Feature
    scratch: Path
    copiers: ThreadPoolExecutor


class ShardWriter(Protocol):
    """One shard. Of one that is not finished no reader sees anything that it takes for data."""

    def __init__(self, target: Target, name: str) -> None:
        """Begin it. name: its split and number, e.g. shard-000000 or train-000000."""

    @staticmethod
    def path_of(name: str) -> str:
        """Return where it is, or its last file, when it is finished."""

    def add(self, rows: pa.Table, clips: Sequence[bytes]) -> None:
        """Take rows, which have all columns that records may have, and the clip of each."""

    def finish(self) -> None:
        """Put it where readers look."""


def feature_of(endings: frozenset[str]) -> Feature:
    """Return what the clips are to the `datasets` library."""
    return next((feature for feature, known in _FEATURES.items() if endings <= known), "clip")


def file_name(row: dict[str, str]) -> str:
    """Return what the clip of a row is called: its row_id and the ending of its format."""
    return row["row_id"] + "".join(PurePosixPath(row["path"] or row["uri"]).suffixes)


def file_names(rows: pa.Table) -> list[str]:
    return [file_name(row) for row in rows.select(["row_id", "path", "uri"]).to_pylist()]


def own_columns(rows: pa.Table, columns: Sequence[str], *, taken: Sequence[str]) -> pa.Table:
    """Return the columns that are handed on; one whose name the format needs for itself ends in `_of_row`."""
    names = [f"{name}_of_row" if name in taken else name for name in columns]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise JobError(f"columns: two would be called {twice!r}", "leave one of them out with --columns")
    return rows.select(list(columns)).rename_columns(names)
