"""Tells a file that cannot be read, as on a bad disk, from a store that cannot be: the first is damage."""

from __future__ import annotations

from framefleet.pipeline.errors import NoFile, StoreError
from framefleet.pipeline.outputs.layout import CLAIM
from framefleet.pipeline.outputs.stores.store import Store


def is_unreadable(store: Store, error: StoreError) -> bool:
    """Tell whether reading failed of one file alone: job.json can be read, and waiting would not help."""
    if error.may_pass or isinstance(error, NoFile):
        return False
    try:
        store.read(CLAIM)
    except (FileNotFoundError, StoreError):
        return False
    return True
