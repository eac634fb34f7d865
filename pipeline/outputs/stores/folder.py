"""In: bytes and a path below a local root. Out: a complete file or none, even after a power cut."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from framefleet.pipeline.outputs.stores.object_store import Stored

TEMPORARY = ".framefleet-"  # hidden: pyarrow and DuckDB skip such names, and so does `list`
# File systems without hard links: exFAT, FAT, many of FUSE, some of SMB.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
_LEFT_AFTER_S = 60.0  # files being written are younger; those that a driver has just left go next time
_CLAIM_S = 30.0  # far longer than it takes to use a claimed name; a claim this old was left by a kill
_LINKS = {errno.ELOOP, errno.ENOTDIR}  # of O_NOFOLLOW: the last name is a link, or one on the way
_ABSENT = {errno.ENOENT, *_LINKS}  # of `stat`
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP}  # of a folder; then its file system does not need it, or cannot


class Folder:
    """Files below `root`. Raises what the operating system raises.

    Links are read, but nothing is changed behind a link that leads out: that folder may be somebody else's.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._was_there = False

    def read(self, path: str, count: int | None = None) -> bytes:
        with self._regular(path).open("rb") as file:
            return file.read(-1 if count is None else count)

    def read_own(self, path: str, first: int, count: int) -> bytes:
        """Return `count` bytes of a file from `first` on; FileNotFoundError if it is behind a link."""
        flags = os.O_RDONLY | os.O_NONBLOCK  # a pipe would be waited for
        place: int | None = None
        with contextlib.ExitStack() as stack:
            for name in (str(self.root), *path.split("/")):
                try:
                    place = os.open(name, flags, dir_fd=place)
                except OSError as error:
                    raise _absent(path) if error.errno in _LINKS else error from None
                stack.callback(os.close, place)
                flags |= os.O_NOFOLLOW
            assert place is not None
            if not stat.S_ISREG(os.fstat(place).st_mode):
                raise _absent(path)
            return os.pread(place, count, first)

    def sha256(self, path: str) -> str:
        with self._regular(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def download(self, path: str, target: Path) -> None:
        shutil.copyfile(self._regular(path), target)

    def _regular(self, path: str) -> Path:
        """Return the path of a regular file. Raises for a folder, and for a pipe, which would block."""
        file = self.root / path
        if not stat.S_ISREG(file.stat().st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
        return file

    def write(self, path: str, content: bytes) -> None:
        """Put `content` there in one step, replacing what was there."""
        self._put(path, content, os.replace)

    def upload(self, path: str, source: Path) -> None:
        with source.open("rb") as file:
            self._put(path, file, os.replace)

    def create(self, path: str, content: bytes) -> None:
        """Put `content` there, in one step; FileExistsError if something is there."""
        self._put(path, content, _name_new)

    def _put(self, path: str, content: bytes | BinaryIO, name: Callable[[Path, Path], object]) -> None:
        target = self._place(path)
        with _temporary(target, content) as temporary:
            name(temporary, target)
        _sync(target.parent)

    def _place(self, path: str) -> Path:
        """Return where to write. An output that is removed while we write is not begun again."""
        if self._was_there and not self.root.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the folder was removed", str(self.root))
        target = self._own(path)
        _make_folder(target.parent)
        self._was_there = True
        return target

    def _own(self, path: str) -> Path:
        """Return the path of a file that may be changed: no link on the way leads out of the root."""
        target = self.root / path
        if not Path(os.path.realpath(target.parent)).is_relative_to(os.path.realpath(self.root)):
            raise OSError(errno.ELOOP, "a link on the way to it leads out of this folder", str(target))
        return target

    def move(self, path: str, to: str) -> None:
        source, target = self._own(path), self._place(to)
        os.replace(source, target)
        _sync(target.parent)
        _sync(source.parent)

    def exists(self, path: str) -> bool:
        return (self.root / path).is_file()

    def children(self, folder: str) -> list[str]:
        try:
            with os.scandir(self.root / folder) as entries:
                names = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(f"{folder}/{name}" for name in names if not _is_temporary(name))

    def list(self, folder: str) -> list[str]:
        names = (file.relative_to(self.root).as_posix() for file in self._files(folder))
        return sorted(name for name in names if not _is_temporary(name))

    def _files(self, folder: str) -> Iterator[Path]:
        for at, _, names in os.walk(self.root / folder, onerror=_raise_unless_absent):
            yield from (Path(at, name) for name in names)

    def details(self, folder: str) -> dict[str, Stored]:
        """Return what `stat` says about each file, except deleted ones and links to nothing."""
        details: dict[str, Stored] = {}
        for path in self.list(folder):
            try:
                details[path] = self.stat(path)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
        return details

    def stat(self, path: str) -> Stored:
        details = (self.root / path).stat()
        return Stored(size=details.st_size, stamp=str(details.st_mtime_ns))

    def delete(self, path: str) -> None:
        self._own(path).unlink(missing_ok=True)

    def delete_many(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.delete(path)

    def delete_all(self, folder: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._own(folder))

    def sweep(self) -> int:
        """Remove files that killed writers left half written, not those being written; return how many."""
        if not self.root.is_dir():
            return 0
        with _temporary(self.root / "now", b"") as temporary:
            now = temporary.stat().st_mtime  # by the file system's own clock, which may be another machine's
        temporaries = filter(_is_temporary, map(str, self._files("")))
        left = [Path(file) for file in temporaries if _modified(Path(file)) < now - _LEFT_AFTER_S]
        for file in left:
            file.unlink(missing_ok=True)
        return len(left)


def _absent(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _is_temporary(path: str) -> bool:
    return path.rpartition("/")[2].startswith(TEMPORARY)


@contextmanager
def _temporary(target: Path, content: bytes | BinaryIO) -> Iterator[Path]:
    """Yield a synced file next to `target`; remove it unless it was renamed."""
    temporary = target.with_name(TEMPORARY + uuid.uuid4().hex)
    try:
        # Not mkstemp, whose files only their owner can read, nor `open`, which recipes may replace.
        with temporary.open("xb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _name_new(temporary: Path, target: Path) -> None:
    """Give a finished file its name, in one step; FileExistsError if something has it."""
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with _claimed(target, now=_modified(temporary)):
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
            os.replace(temporary, target)


@contextmanager
def _claimed(target: Path, *, now: float) -> Iterator[None]:
    """Keep others from creating `target`, with a file that only one can create. now: the file system's."""
    claim = target.with_name(f"{TEMPORARY}claim-{target.name}")
    if now - _modified(claim) > _CLAIM_S:
        claim.unlink(missing_ok=True)
    deadline = time.monotonic() + _CLAIM_S
    while True:
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            break
        except FileExistsError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{claim} is in the way") from None
            time.sleep(0.01)
    try:
        yield
    finally:
        claim.unlink(missing_ok=True)


def _modified(file: Path) -> float:
    """Return when a file was last written; infinity if it is gone."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def _make_folder(folder: Path) -> None:
    """Make `folder` and those above it, syncing the parent of each."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
