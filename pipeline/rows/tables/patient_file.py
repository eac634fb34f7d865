"""In: a table's file in a store. Out: its bytes, also after the store was out of reach for minutes."""

from __future__ import annotations

from typing import Protocol

from framefleet.pipeline.errors import StoreError
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.outputs.stores.retries import Patience
from framefleet.pipeline.outputs.stores.store_errors import FIXES, in_a_line, trouble_of


class OpenFile(Protocol):
    """As much of a file as readers of tables use."""

    def tell(self) -> int: ...
    def seek(self, offset: int, /) -> int: ...
    def read(self, count: int, /) -> bytes: ...


class PatientFile:
    """What is read again begins where the first try did."""

    def __init__(self, file: OpenFile, patience: Patience) -> None:
        self._file, self._patience = file, patience
        self.tell, self.seek = file.tell, file.seek  # which ask nobody

    def read(self, count: int, /) -> bytes:
        """Raises StoreError where the store is out of reach for too long, and else what its library does."""
        offset = self.tell()

        def read() -> bytes:
            self.seek(offset)
            return self._file.read(count)

        try:
            return self._patience.ride_out(read)
        except Exception as error:  # every store has errors of its own
            if trouble_of(error) != "unreachable":
                raise
            said = public_text(f"{type(error).__name__}: {in_a_line(error)}")
            failure = StoreError(f"could not read on in {self._patience.where}: {said}", FIXES["unreachable"])
            failure.kind = "unreachable"
            raise failure from None
