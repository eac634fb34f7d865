"""In: one output URL (a local folder or anything fsspec opens). Out: atomic reads and writes.

JSON in an output may be anybody's: `read_json` returns a checked value, or raises JobError for any damage.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

import fsspec
from pydantic import TypeAdapter, ValidationError

from framefleet.pipeline import errors
from framefleet.pipeline.errors import PUT_BACK, FramefleetError, JobError, StoreError, not_ours
from framefleet.pipeline.guards.arguments import check_arguments
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.guards.mistakes import either, must_be, nearest
from framefleet.pipeline.guards.redaction import check_url, keep_secrets, public_text, public_url
from framefleet.pipeline.metrics import STORE_BYTES, Counts
from framefleet.pipeline.outputs.stores import retries
from framefleet.pipeline.outputs.stores.folder import Folder
from framefleet.pipeline.outputs.stores.object_store import ObjectStore, Stored, is_s3

# What s3fs takes; it passes others on to libraries below it, which refuse them.
_S3_OPTIONS = ("key", "secret", "token", "anon", "profile", "endpoint_url", "client_kwargs", "config_kwargs")
_SMALL_BYTES = 1 << 20  # are written at once
_NO_OPTION = re.compile(r"unexpected keyword argument '(\w+)'")
log = logging.getLogger(__name__)


class Store:
    """One output root. Paths are relative to it, with forward slashes; those that leave it are refused.

    Files are never half written: a reader sees the old bytes, the new ones or none. If the store does not
    answer, every call asks it again, until it has been silent for `outage_s`. What fails for good raises
    StoreError, whose `kind` says what is wrong, or JobError if the URL or the options cannot be right, except
    that `read` of an absent path raises FileNotFoundError. A store can be pickled and used from several
    threads, and shows no credentials in its text and errors.

    storage_options: what fsspec takes, for S3 `key`, `secret`, `endpoint_url`, `client_kwargs`; without them,
    the usual environment variables count (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...).
    """

    @check_arguments
    def __init__(
        self,
        url: str | os.PathLike[str],
        storage_options: Mapping[str, Any] | None = None,
        *,
        outage_s: float = retries.OUTAGE_S,
    ) -> None:
        url = os.fspath(url)
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
            self._backend = ObjectStore(_supported(self._url), self._options, outage_s)
        self._patience = retries.Patience(public_url(self._url), outage_s)

    def __repr__(self) -> str:
        return f"Store({self.url_of('')!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        patience = self._patience
        return _arrived, (self._url, self._options, patience.limit_s, patience.has_answered)

    def below(self, folder: str) -> Store:
        """Return a store whose root is a folder of this one."""
        return Store(f"{self._url}/{_checked(folder)}", self._options, outage_s=self._patience.limit_s)

    def above(self) -> Store:
        """Return a store whose root is the folder that this one is in."""
        return Store(self._url.rpartition("/")[0], self._options, outage_s=self._patience.limit_s)

    @property
    def silent_s(self) -> float:
        """For how many seconds it has not answered this process; 0 while it does."""
        return self._patience.silent_s

    @property
    def counts(self) -> Counts:
        """Figures about this process's requests."""
        return self._patience.counts

    def url_of(self, path: str) -> str:
        """Return where `path` is, as a user would write it, without credentials."""
        root = public_url(self._url)
        return f"{root}/{path}" if path else root

    def read(self, path: str, count: int | None = None) -> bytes:
        """Return the first `count` bytes of `path`, or all. Raises FileNotFoundError if it is absent."""
        content = self._ask("read", path, lambda at: self._backend.read(at, count), may_be_absent=True)
        self.counts.add(STORE_BYTES, len(content), "read")
        return content

    def read_own(self, path: str, first: int, count: int) -> bytes:
        """Return bytes of `path` to be given to others. Raises FileNotFoundError if a link leads to it."""
        read = partial(self._backend.read_own, first=first, count=count)
        content = self._ask("read", path, read, may_be_absent=True)
        self.counts.add(STORE_BYTES, len(content), "read")
        return content

    def sha256(self, path: str) -> str:
        """Return the SHA-256 of a file of any size, without holding it. Raises as `read` does."""
        return self._ask("read", path, lambda at: self._backend.sha256(at), may_be_absent=True)

    def download(self, path: str, target: Path) -> None:
        """Copy `path` to a local file, which may be left half written if that fails."""
        self._ask("read", path, lambda at: self._backend.download(at, target))

    def write(self, path: str, content: bytes) -> None:
        """Store `content` at `path`, replacing what was there."""
        is_small = len(content) <= _SMALL_BYTES
        self._ask("write", path, lambda at: self._backend.write(at, content), is_small=is_small)
        self.counts.add(STORE_BYTES, len(content), "written")

    def upload(self, path: str, source: Path) -> None:
        """Store a local file at `path`, replacing what was there, without reading it into memory."""
        self._ask("write", path, lambda at: self._backend.upload(at, source))

    def create(self, path: str, content: bytes) -> None:
        """Store `content` at `path`. Raises StoreConflict if other bytes are there.

        If several create at once, one wins. Equal bytes count as success, so it may be repeated, also by a
        retried request that finds what its own first try stored.
        """

        def is_ours(at: str) -> bool:
            try:
                self._backend.create(at, content)
            except FileExistsError:
                return self._backend.read(at, len(content) + 1) == content
            return True

        if not self._ask("create", path, is_ours, is_small=len(content) <= _SMALL_BYTES):
            raise errors.StoreConflict(
                f"{self.url_of(path)} exists already, with other bytes",
                "if nothing else writes to this output, choose another one",
            )
        self.counts.add(STORE_BYTES, len(content), "written")

    def creates_in_one_step(self, path: str) -> bool:
        """Return whether `create` is one step here: of two at once, one wins. Leaves a file at `path`."""
        backend = self._backend
        if isinstance(backend, Folder):
            return True
        return self._ask("create", path, backend.has_conditions)

    def exists(self, path: str) -> bool:
        """Return whether a file is at `path`."""
        return self._ask("look for", path, self._backend.exists, is_small=True)

    def children(self, folder: str) -> list[str]:
        """Return the paths of what is directly in `folder`, sorted; those of folders end with a slash."""
        return self._ask("list", folder, self._backend.children, may_be_root=True)

    def list(self, folder: str) -> list[str]:
        """Return the paths of all files below `folder`, at any depth, sorted; [] if it is absent."""
        return self._ask("list", folder, self._backend.list, may_be_root=True)

    def details(self, folder: str) -> dict[str, Stored]:
        """Return what is stored below `folder`, at any depth; {} if it is absent."""
        return self._ask("list", folder, self._backend.details, may_be_root=True)

    def stat(self, path: str) -> Stored:
        """Return what is stored at `path`. Raises FileNotFoundError if it is absent."""
        return self._ask("look for", path, self._backend.stat, may_be_absent=True, is_small=True)

    def move(self, path: str, to: str) -> None:
        """Move a file, replacing what was there; a link stays a link, so nothing behind it is copied."""
        backend, target = self._backend, _checked(to)
        if isinstance(backend, Folder):
            self._ask("move", path, lambda at: backend.move(at, target))
        else:
            self.write(target, self.read(path))
            self.delete(path)

    def delete(self, path: str) -> None:
        """Remove `path`; an absent one is fine."""
        self._ask("delete", path, self._backend.delete)

    def delete_many(self, paths: Iterable[str]) -> None:
        """Remove all of these; absent ones are fine."""
        wanted = [_checked(path) for path in paths]
        self._ask("delete", "", lambda _: self._backend.delete_many(wanted), may_be_root=True)

    def delete_all(self, folder: str) -> None:
        """Remove what is below `folder`, and the folder if the store has folders; an absent one is fine."""
        self._ask("delete", folder, self._backend.delete_all)

    def sweep(self) -> int:
        """Remove what killed writers left half written, which no reader sees; return how many."""
        return self._ask("sweep", "", lambda _: self._backend.sweep(), may_be_root=True)

    def _ask(
        self,
        verb: str,
        path: str,
        request: Callable[[str], retries.Reply],
        *,
        may_be_absent: bool = False,
        may_be_root: bool = False,
        is_small: bool = False,
    ) -> retries.Reply:
        """Return the backend's answer to a request about `path`, which is repeated as needed."""
        checked = path if may_be_root and not path else _checked(path)
        backend, ask = self._backend, partial(request, checked)
        is_remote = isinstance(backend, ObjectStore)
        try:
            if isinstance(backend, ObjectStore):
                ask = partial(backend.ask, ask)
                return self._patience.ride_out(ask, reopen=backend.reopen, is_small=is_small)
            return self._patience.ride_out(ask, is_small=is_small)
        except FramefleetError:
            raise
        except Exception as error:  # every fsspec implementation has its own errors, e.g. botocore's
            trouble = retries.trouble_of(error)
            is_lasting = trouble in retries.LASTING
            if isinstance(error, FileNotFoundError) and trouble == "other":
                if may_be_absent:
                    raise FileNotFoundError(f"{self.url_of(path)} does not exist") from None
                trouble = "missing"  # the place to write to
            if isinstance(error, NotADirectoryError | FileExistsError):
                root = Path(self.url_of(""))
                if file := next(filter(Path.is_file, (root, *root.parents)), None):
                    raise errors.NoFile(f"{file} is a file", "choose a folder") from None
            if isinstance(error, OSError) and error.errno in errors.NO_FILE_ERRNOS:
                raise errors.NoFile(
                    f"{self.url_of(path)} is not a file: {error.strerror}",
                    "choose another output, or remove what framefleet did not write",
                ) from None
            reason = retries.reason_of(error)
            is_public = public_text(str(reason)) == str(reason)
            shown = public_text(f"{type(error).__name__}: {retries.in_a_line(reason)}")
            fix = (retries.FIXES if is_remote else retries.LOCAL_FIXES)[trouble]
            fix = retries.better_fix(error) or fix
            problem = f"could not {verb} {self.url_of(path)}: {shown}"
            # About an option that a library passes on when it connects.
            if is_remote and isinstance(error, TypeError) and (option := _NO_OPTION.search(shown)):
                near = nearest(option[1], _S3_OPTIONS) if is_s3(self._url) else []
                fix = either(f"did you mean {near[0]!r}?", "leave it out") if near else "leave it out"
                problem = f"{self.url_of('')}: storage_options: no library takes {option[1]!r}"
                raise JobError(problem, fix) from None
            failure = StoreError(problem, fix)
            failure.kind = trouble
            if is_lasting:
                failure.exit_code = errors.UserError.exit_code
            # A traceback would print the cause's own text.
            raise failure from (error if is_public else None)


def _arrived(url: str, options: dict[str, Any], outage_s: float, has_answered: bool) -> Store:
    """Return a store that another process has sent, with its own connections."""
    store = Store(url, options, outage_s=outage_s)
    store._patience.has_answered = has_answered
    return store


def _supported(url: str) -> str:
    check_url(url)
    try:
        urlsplit(url.rpartition("::")[2]).port  # noqa: B018  # read for what it raises
    except ValueError:
        raise JobError(f"{public_url(url)} is not a URL", "check its host and port") from None
    if "?" in url:  # it would end up between the root and every path below it
        problem = f"{public_url(url)} has a query (what follows ?)"
        raise JobError(problem, "leave it out; keys and signatures belong in storage_options")
    protocol = url.partition("://")[0].partition("::")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        problem = f"{public_url(url)} cannot be opened: its package is not installed"
        raise JobError(problem, str(error)) from None
    except ValueError as error:
        problem = f"{public_url(url)} cannot be opened: {error}"
        raise JobError(problem, "use a folder or s3://bucket/name") from None
    return url


def _checked(path: str) -> str:
    """Return `path` if it stays below the root and means the same in every store."""
    pure = PurePosixPath(path)
    plain = str(pure) == path != "." and not {"\\", "\0"} & set(path)
    if not plain or pure.is_absolute() or ".." in pure.parts:
        problem = f"{path!r} is not a path inside the output"
        raise StoreError(problem, "use names and forward slashes, without `..`")
    return path


def sweep_in_background(store: Store) -> threading.Thread:
    """Remove leftovers in a thread, as that looks at a million clips. Only for the driver with the lock."""

    def sweep() -> None:
        try:
            if count := store.sweep():
                log.info("%s: removed half-written files of earlier runs: %d", store.url_of(""), count)
        except FramefleetError as error:  # no reader sees them, and the next run tries again
            log.info("%s: half-written files of earlier runs are left: %s", store.url_of(""), error.problem)

    thread = threading.Thread(target=sweep, name="sweep", daemon=True)
    thread.start()
    return thread


_MAX_BYTES = 1 << 26  # job.json of a model of ten thousand files has one megabyte

Value = TypeVar("Value")


def read_json(
    store: Store, path: str, kind: TypeAdapter[Value], *, fix: str = PUT_BACK, most: int = _MAX_BYTES
) -> Value:
    """Return what a file of the output says. Raises FileNotFoundError if it is absent. fix: of damage."""
    content = store.read(path, most + 1)
    if len(content) > most:
        raise not_ours(store.url_of(path), f"it has more than {most:,} bytes", fix)
    return read_as(kind, content, store.url_of(path), fix=fix)


def read_as(kind: TypeAdapter[Value], text: str | bytes, where: str, *, fix: str = PUT_BACK) -> Value:
    """Return the checked value of JSON. where: what messages call it."""
    try:
        return kind.validate_python(parse_json(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        problem = f"it must be {must_be(first)}"
        raise not_ours(where, f"{place}: {problem}" if place else problem, fix) from None
    except ValueError as error:
        raise not_ours(where, str(error), fix) from None
