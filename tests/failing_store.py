"""`failing://`: a store in memory that raises the errors it is given before it answers requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class Failing(MemoryFileSystem):  # type: ignore[misc]
    protocol = "failing"
    errors: ClassVar[Iterator[Exception]] = iter(())
    num_refreshed: ClassVar[int] = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.removeprefix("failing://")))

    def invalidate_cache(self, path: str | None = None) -> None:
        Failing.num_refreshed += 1

    def isfile(self, path: str) -> bool:
        self._fail()
        return bool(super().isfile(path))

    def find(self, *arguments: Any, **options: Any) -> Any:
        self._fail()
        return super().find(*arguments, **options)

    def pipe_file(self, *arguments: Any, **options: Any) -> None:
        self._fail()
        super().pipe_file(*arguments, **options)

    def _fail(self) -> None:
        if error := next(self.errors, None):
            raise error


fsspec.register_implementation("failing", Failing, clobber=True)


@contextmanager
def failing(errors: Iterable[Exception]) -> Iterator[None]:
    """Let requests of `failing://` raise these, one each."""
    Failing.errors = iter(errors)
    try:
        yield
    finally:
        Failing.errors = iter(())
