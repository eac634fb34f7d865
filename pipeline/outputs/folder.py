"""In: bytes and a path below a local root. Out: a file all there or not there, even after a power cut."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from framefleet.pipeline.outputs.object_store import Stored

TEMPORARY = ".framefleet-"  # hidden: pyarrow and DuckDB skip such names, and so does `list`


class Folder:
    """Files below `root`. Raises what the operating system raises."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str, count: int | None = None) -> bytes:
        with open(self._regular(path), "rb") as file:
            return file.read(-1 if count is None else count)

    def download(self, path: str, target: Path) -> None:
        shutil.copyfile(self._regular(path), target)

    def _regular(self, path: str) -> Path:
        """Return where a file is; a pipe, which would be waited for, is as little one as a folder."""
        found = self.root / path
        if not stat.S_ISREG(found.stat().st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(found))
        return found

    def write(self, path: str, content: bytes) -> None:
        """Put `content` there, in one step, whatever was there."""
        target = self.root / path
        with _temporary(target, content) as temporary:
            os.replace(temporary, target)
        _sync(target.parent)

    def upload(self, path: str, source: Path) -> None:
        """Put a copy of `source` there, in one step, whatever was there."""
        target = self.root / path
        with open(source, "rb") as file, _temporary(target, file) as temporary:
            os.replace(temporary, target)
        _sync(target.parent)

    def create(self, path: str, content: bytes) -> None:
        """Put `content` there, in one step; FileExistsError if something is there."""
        target = self.root / path
        with _temporary(target, content) as temporary:
            os.link(temporary, target)
        _sync(target.parent)

    def exists(self, path: str) -> bool:
        return (self.root / path).is_file()

    def list(self, folder: str) -> list[str]:
        """Return the files below `folder` at any depth, relative to the root."""
        names = (
            Path(at, name).relative_to(self.root).as_posix()
            for at, _, files in os.walk(self.root / folder, onerror=_raise_unless_absent)
            for name in files
            if not name.startswith(TEMPORARY)
        )
        return sorted(names)

    def details(self, folder: str) -> dict[str, Stored]:
        return {path: self.stat(path) for path in self.list(folder)}

    def stat(self, path: str) -> Stored:
        found = (self.root / path).stat()
        return Stored(size=found.st_size, stamp=str(found.st_mtime_ns))

    def delete(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def delete_many(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.delete(path)

    def delete_all(self, folder: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.root / folder)


@contextmanager
def _temporary(target: Path, content: bytes | BinaryIO) -> Iterator[Path]:
    """Yield a synced file beside `target`, and remove it unless it was renamed."""
    _make_folder(target.parent)
    temporary = target.with_name(TEMPORARY + uuid.uuid4().hex)
    try:
        with open(temporary, "xb") as file:  # not mkstemp: its files are readable by their owner only
            if isinstance(content, bytes):
                file.write(content)
            else:
                shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Make `folder` and those above it, each safely named in its own parent."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
