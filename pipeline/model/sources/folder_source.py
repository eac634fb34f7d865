"""Where a model comes from, and the simplest such place: a folder of this machine.

Every source lists its files with what it says about them, gives the bytes of small ones, and fetches chosen
files into a folder of this machine, once for all its processes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from framefleet.pipeline.model.sources.headers import read_first
from framefleet.pipeline.model.sources.integrity import list_files, named_sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What a source says about one of its files."""

    size: int
    sha256: str | None = None  # None where it does not say


class Source(Protocol):
    """One model, as it is now.

    path, revision: what opens it again, on other machines too; a hub's revision is the commit.
    name: the same in one text, without credentials: what records and messages call it.
    is_local: reading its files costs no download.
    """

    @property
    def path(self) -> str: ...

    @property
    def revision(self) -> str | None: ...

    @property
    def name(self) -> str: ...

    @property
    def is_local(self) -> bool: ...

    @property
    def files(self) -> Mapping[str, Listed]: ...

    def read(self, file: str, count: int | None = None) -> bytes:
        """Return the first `count` bytes of a file; all of them for None."""
        ...

    def fetch(self, files: Collection[str]) -> Path:
        """Return a folder of this machine that holds these files."""
        ...


class FolderSource:
    """A pipeline folder of this machine."""

    is_local = True
    revision = None

    def __init__(self, path: str) -> None:
        self.path = self.name = path

    @cached_property
    def files(self) -> Mapping[str, Listed]:
        return list_folder(Path(self.path))

    def read(self, file: str, count: int | None = None) -> bytes:
        return read_first(Path(self.path, file), count)

    def fetch(self, files: Collection[str]) -> Path:
        return Path(self.path)


def list_folder(folder: Path) -> dict[str, Listed]:
    """Return the files of a folder; of those in a cache, the SHA-256 that they are named by."""
    return {
        name: Listed(size=(folder / name).stat().st_size, sha256=named_sha256(folder / name))
        for name in list_files(folder)
    }
