"""What a child process runs that is to read from a store: a new one imports this file, and no test."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from framefleet.pipeline.outputs.stores.store import Store


def read_into(store: Store, pipe: Connection) -> None:
    pipe.send(store.read("job.json"))
