"""The interface of model sources, and the simplest source: a folder on this machine.

Every source lists its files with what it knows about them, reads small ones, and fetches chosen files into a
folder on this machine, once for all processes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from framefleet.pipeline.errors import FramefleetError, ModelError
from framefleet.pipeline.model.sources.headers import Notes, Tensor, read_first, read_header
from framefleet.pipeline.model.sources.integrity import named_sha256
from framefleet.pipeline.model.sources.selection import MAX_FOLDER_DEPTH
from framefleet.pipeline.model.specs.model_index import INDEXES


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    size: int
    sha256: str | None = None  # None if the source does not know it


class Source(ABC):
    """One model in its current version."""

    path: str  # opens it again together with `revision`, on other machines too
    revision: str | None = None  # on a hub: the commit
    name: str  # both in one text, without credentials, for records and messages
    is_local: bool = False  # reading its files needs no download

    @cached_property
    @abstractmethod
    def files(self) -> Mapping[str, Listed]: ...

    @abstractmethod
    def read(self, file: str, count: int | None = None) -> bytes:
        """Return the first `count` bytes of a file; all of them for None."""

    def header(self, file: str) -> tuple[list[Tensor], Notes]:
        """Return the header of a safetensors file, see `read_header`."""
        return read_header(partial(self.read, file), f"{self.name}/{file}", self.files[file].size)

    def missing(self, problem: str, fix: str) -> FramefleetError:
        """Return the error for a file that is not listed."""
        return ModelError(problem, fix)

    @abstractmethod
    def fetch(self, files: Collection[str]) -> Path:
        """Return a folder on this machine with these files."""


class FolderSource(Source):
    is_local = True

    def __init__(self, path: str, *, only: str | None = None) -> None:
        """only: the single file that is wanted; if it exists, others are not listed."""
        self.path = self.name = path
        self._only = only

    @cached_property
    def files(self) -> Mapping[str, Listed]:
        is_there = self._only is not None and Path(self.path, self._only).is_file()
        return list_folder(Path(self.path), [self._only] if self._only and is_there else None)

    def read(self, file: str, count: int | None = None) -> bytes:
        return read_first(Path(self.path, file), count)

    def fetch(self, files: Collection[str]) -> Path:
        return Path(self.path)


def list_folder(folder: Path, names: Collection[str] | None = None) -> dict[str, Listed]:
    """Return the files of a folder, or those in `names`; without files that are too deep to be loaded.

    Files in a cache are named by their SHA-256, which is returned too.
    """
    if names is None:
        is_pipeline = any((folder / index).is_file() for index in INDEXES)
        depth = MAX_FOLDER_DEPTH if is_pipeline else 2
        paths = [path for above in range(depth) for path in folder.glob("*/" * above + "*")]
        names = sorted(path.relative_to(folder).as_posix() for path in paths if path.is_file())
    sizes = {name: (folder / name).stat().st_size for name in names}
    return {name: Listed(size=size, sha256=named_sha256(folder / name)) for name, size in sizes.items()}
