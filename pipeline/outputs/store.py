"""In: one output URL (a local folder or anything fsspec opens). Out: atomic reads and writes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec

from framefleet.pipeline.errors import FramefleetError, JobError, NoFile, StoreConflict, StoreError
from framefleet.pipeline.guards.public import check_url, keep_secrets, public_text, public_url
from framefleet.pipeline.outputs.folder import Folder
from framefleet.pipeline.outputs.object_store import ObjectStore, Stored, is_transient

# A folder, a pipe, a device or a ring of links in the place of a file, or one of these on the way to it; or a
# name that no file can have.
NO_FILE = {errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}


class Store:
    """One output root. Paths are relative to it, with forward slashes; those that leave it are refused.

    Nothing is ever half there: a reader sees the old bytes, the new ones or none. Whatever fails raises
    StoreError, or JobError where nothing can be opened as it is given, except that `read` of an absent path
    raises FileNotFoundError. Travels to other processes,
    may be used from several threads, and shows no credentials in its text and errors.

    storage_options: what fsspec takes, for S3 `key`, `secret`, `endpoint_url`, `client_kwargs`; without
    them the usual environment variables count (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...).
    """

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        scheme, _, rest = url.rpartition("://")
        self._options = dict(storage_options or {})
        keep_secrets([self._options, url])
        self._backend: Folder | ObjectStore
        if scheme in ("", "file", "local"):
            # Absolute: workers run in other folders.
            self._url = os.path.abspath(os.path.expanduser(rest))
            self._backend = Folder(Path(self._url))
        else:
            self._url = url.rstrip("/")
            self._backend = ObjectStore(_supported(self._url), self._options)

    def __repr__(self) -> str:
        return f"Store({self.url_of('')!r})"

    def __reduce__(self) -> tuple[type[Store], tuple[str, dict[str, Any]]]:
        return Store, (self._url, self._options)

    def url_of(self, path: str) -> str:
        """Return where `path` lies, as a user would write it, without credentials."""
        root = public_url(self._url)
        return f"{root}/{path}" if path else root

    def read(self, path: str, count: int | None = None) -> bytes:
        """Return the first `count` bytes of `path`, or all; FileNotFoundError when it is not there."""
        with self._failing("read", path, absent_is_error=False):
            return self._backend.read(_checked(path), count)

    def download(self, path: str, target: Path) -> None:
        """Copy `path` to a local file, which may be left half there when it fails."""
        with self._failing("read", path):
            self._backend.download(_checked(path), target)

    def write(self, path: str, content: bytes) -> None:
        """Store `content` at `path`, whatever was there."""
        with self._failing("write", path):
            self._backend.write(_checked(path), content)

    def upload(self, path: str, source: Path) -> None:
        """Store a local file at `path`, whatever was there, without having it in memory."""
        with self._failing("write", path):
            self._backend.upload(_checked(path), source)

    def create(self, path: str, content: bytes) -> None:
        """Store `content` at `path` unless other bytes are there: then StoreConflict.

        Of several that create at once one wins. Equal bytes count as success: it may be repeated, also by
        a retried request that finds what its own first try stored.
        """
        with self._failing("create", path):
            try:
                self._backend.create(_checked(path), content)
            except FileExistsError:
                if self._backend.read(path) != content:
                    raise StoreConflict(
                        f"{self.url_of(path)} exists already, with other bytes",
                        "if nothing else writes to this output, choose another one",
                    ) from None

    def exists(self, path: str) -> bool:
        """Tell whether a file is at `path`."""
        with self._failing("look for", path):
            return self._backend.exists(_checked(path))

    def list(self, folder: str) -> list[str]:
        """Return the paths of all files below `folder`, at any depth, sorted; [] if it is absent."""
        with self._failing("list", folder):
            return self._backend.list(_checked(folder) if folder else "")

    def details(self, folder: str) -> dict[str, Stored]:
        """Return what is stored below `folder`, at any depth; {} if it is absent."""
        with self._failing("list", folder):
            return self._backend.details(_checked(folder) if folder else "")

    def stat(self, path: str) -> Stored:
        """Return what is stored at `path`; FileNotFoundError when it is not there."""
        with self._failing("look for", path, absent_is_error=False):
            return self._backend.stat(_checked(path))

    def delete(self, path: str) -> None:
        """Remove `path`; an absent one is fine."""
        with self._failing("delete", path):
            self._backend.delete(_checked(path))

    def delete_many(self, paths: Iterable[str]) -> None:
        """Remove all of these; absent ones are fine."""
        with self._failing("delete", "some files"):
            self._backend.delete_many([_checked(path) for path in paths])

    def delete_all(self, folder: str) -> None:
        """Remove what is below `folder`, and the folder where the store has such; an absent one is fine."""
        with self._failing("delete", folder):
            self._backend.delete_all(_checked(folder))

    @contextmanager
    def _failing(self, verb: str, path: str, *, absent_is_error: bool = True) -> Iterator[None]:
        try:
            yield
        except FramefleetError:
            raise
        except Exception as error:  # every fsspec implementation has errors of its own, as botocore's
            if isinstance(error, FileNotFoundError) and not absent_is_error:
                raise FileNotFoundError(f"{self.url_of(path)} does not exist") from None
            if isinstance(error, OSError) and error.errno in NO_FILE:
                raise NoFile(
                    f"{self.url_of(path)} is no file: {error.strerror}",
                    "choose another output, or take away what framefleet did not write",
                ) from None
            said = f"{type(error).__name__}: {error}"
            shown = public_text(said)
            failure = StoreError(f"could not {verb} {self.url_of(path)}: {shown}", _fix(error))
            failure.may_pass = is_transient(error)
            # A traceback would print the cause's own text.
            raise failure from (error if shown == said else None)


def _supported(url: str) -> str:
    check_url(url)
    try:
        urlsplit(url.rpartition("::")[2]).port  # noqa: B018  # read for what it raises
    except ValueError:
        raise JobError(f"{public_url(url)} is not a URL", "check its host and port") from None
    if "?" in url:  # it would end up between the root and every path below it
        raise JobError(
            f"{public_url(url)} is given with a query, what follows ?",
            "leave it out; keys and signatures are storage_options",
        )
    protocol = url.partition("://")[0].partition("::")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except (ValueError, ImportError) as error:  # an unknown protocol, or its package is missing
        raise JobError(
            f"{public_url(url)} cannot be opened: {error}", "use a folder or s3://bucket/name"
        ) from None
    return url


def _checked(path: str) -> str:
    """Return `path` if it stays below the root and means the same in every store."""
    pure = PurePosixPath(path)
    plain = str(pure) == path != "." and not {"\\", "\0"} & set(path)
    if not plain or pure.is_absolute() or ".." in pure.parts:
        raise StoreError(
            f"{path!r} is not a path inside the output", "use names and forward slashes, without `..`"
        )
    return path


def _fix(error: Exception) -> str:
    if isinstance(error, PermissionError) or "credentials" in str(error).lower():
        return "check the credentials and their rights on this output"
    if isinstance(error, FileNotFoundError):
        return "make the bucket first, or check its name"
    return "check that the store can be reached and has room, then run the same command again"
