"""From an output with many small parts of records to one with a few large ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framefleet.cluster.driver.lock import DriverLock
from framefleet.jobs.show.watch import Callback, Checked, Watch
from framefleet.pipeline.outputs.output import Output
from framefleet.pipeline.outputs.parts.compaction import Compacted, Compactor


def compact(output: str, *, storage_options: Mapping[str, Any] | None = None) -> Compacted:
    """Merge the small parts of records of an output into large ones, and those of its drafts.

    storage_options: what fsspec takes. Raises JobError where there is no output, a job writes to it, or a
    part is damaged; StoreError.
    """
    return compact_output(Output.open(output, storage_options), Callback())


def compact_output(output: Output, watch: Watch) -> Compacted:
    """Do what `compact` does, reporting to `watch`."""
    found = [_compacted(one, watch) for one in (output.drafts, output) if one]
    return Compacted(
        num_before=sum(one.num_before for one in found),
        num_after=sum(one.num_after for one in found),
        num_rows=sum(one.num_rows for one in found),
    )


def _compacted(output: Output, watch: Watch) -> Compacted:
    with DriverLock(output.store) as lock:
        return Compactor(output.store, lock).compact(lambda num: watch.show(Checked(num_rows=num)))
