"""Damaged files of an output: kept where no reader takes them for what they were."""

from __future__ import annotations

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.parts.seals import Hold
from framefleet.pipeline.outputs.stores.store import Store

DAMAGED = "damaged"  # the folder that they are kept in
_MAX_BYTES = 1 << 30  # as of a part


def set_aside(store: Store, path: str, hold: Hold) -> None:
    """Move a file into damaged/. Only for who holds the output."""
    if store.exists(path) and store.stat(path).size > _MAX_BYTES:  # a link may lead to nothing
        raise JobError(
            f"{store.url_of(path)} has more than {_MAX_BYTES:,} bytes, and is not framefleet's",
            "move it out of the output",
        )
    hold.check()
    store.move(path, f"{DAMAGED}/{path}")
