"""In: paths and URLs from a table. Out: the bytes of their files.

The table is not trusted: it may read only below `inputs.roots`, and every read is bounded in bytes and time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from framefleet.pipeline.errors import InputError, StoreError
from framefleet.pipeline.guards.arguments import check_arguments
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.guards.regular_file import read_regular
from framefleet.pipeline.outputs.stores.retries import FIXES, OUTAGE_S
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.rows.inputs.roots import (
    MAX_BYTES,
    LocalFile,
    Roots,
    StoredFile,
    WebFile,
    too_many_bytes,
)


class Inputs:
    """Reads what the rows of one table may read. Can be pickled, and threads may share it.

    roots: folders and URLs below which everything may be read; elsewhere, only http and https from public
    addresses. base: the table's own folder, where relative paths start. storage_options: for object stores.
    outage_s: how long one may be unreachable.
    """

    @check_arguments
    def __init__(
        self,
        roots: Sequence[str],
        storage_options: Mapping[str, Any] | None = None,
        *,
        base: str | None = None,
        outage_s: float = OUTAGE_S,
    ) -> None:
        self._roots = Roots(roots, base)
        self._stores = {root: Store(root, storage_options, outage_s=outage_s) for root in self._roots.stored}

    def locate(self, uri: str) -> str:
        """Return an absolute path or URL of the same file, without credentials. Raises InputError."""
        match self._roots.place(uri):
            case LocalFile() as place:
                return place.path
            case StoredFile() as place:
                return f"{public_url(place.root)}/{place.path}"
            case WebFile() as place:
                return str(place.url.with_user(None))

    def read(self, uri: str) -> bytes:
        """Return the content. Raises InputError, or StoreError if the store of a root is unreachable."""
        place, count = self._roots.place(uri), MAX_BYTES + 1
        try:
            match place:
                case LocalFile():
                    content = read_regular(place.path, count)
                case StoredFile():
                    content = _read_object(self._stores[place.root], place.path, count)
                case WebFile():
                    from framefleet.pipeline.rows.inputs.http_read import read_http  # imports aiohttp: 0.4 s

                    content = read_http(place, self._roots.web)
        except FileNotFoundError:
            raise InputError("it does not exist", "check the path") from None
        except OSError as error:
            if not isinstance(place, LocalFile):  # the machine's fault, not the file's
                raise
            fix = "check the path and its permissions"
            raise InputError(f"it cannot be read: {error.strerror}", fix) from None
        if len(content) > MAX_BYTES:
            raise too_many_bytes(MAX_BYTES)
        if not content:
            raise InputError("it is an empty file", "write the file again")
        return content


@contextmanager
def naming(column: str, uri: str) -> Iterator[None]:
    """Put column and cell in front of an InputError: "image is 'a.png', but it does not exist"."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{column} is {public_url(uri)!r}, but {error.problem}", error.fix) from None


def _read_object(store: Store, path: str, count: int) -> bytes:
    try:
        return store.read(path, count)
    except StoreError as error:
        if error.may_pass:
            raise
        message = error.problem.removeprefix(f"could not read {store.url_of(path)}: ")
        _, mark, query = path.partition("?")
        problem = f"it cannot be read: {message.replace(mark + query, '')}"
        is_close = error.fix not in FIXES.values()
        raise InputError(problem, error.fix if is_close else "check the path and the credentials") from None
