"""The command `framefleet compact`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from framefleet.api.commands import (
    AsJson,
    Callback,
    Checked,
    OutputToRead,
    StorageSets,
    Watch,
    stderr,
    stdout,
)

if TYPE_CHECKING:
    from framefleet.api.outputs import Output
    from framefleet.plugins.compact.compaction import Compacted


def compact_command(output: OutputToRead, as_json: AsJson = False, sets: StorageSets = None) -> None:
    """Merge many small files of records into a few large ones.

    Jobs write such a file every few seconds. With fewer files, large outputs are faster to resume, report and
    query. Records and clips do not change. Refused while a job writes to the output.
    """
    from framefleet.api.jobs import output_at, watch_on

    with watch_on(stderr) as watch:
        compacted = compact_output(output_at(output, sets), watch)
    if as_json:
        stdout.say(json.dumps(asdict(compacted)))
    else:
        stdout.say(f"parts of records: {compacted.num_before:,} before, {compacted.num_after:,} now")


def compact(output: str, *, storage_options: Mapping[str, Any] | None = None) -> Compacted:
    """Merge the small parts of records of an output into large ones, and those of its inner outputs.

    storage_options: for fsspec. Raises JobError if there is no output, a job writes to it, or a part is
    damaged, and StoreError.
    """
    from framefleet.api.outputs import Output

    return compact_output(Output.open(output, storage_options), Callback())


def compact_output(output: Output, watch: Watch) -> Compacted:
    """Merge parts, as `compact` does, and report to `watch`."""
    from framefleet.api.outputs import DriverLock, HeldOutput, outputs_in
    from framefleet.plugins.compact.compaction import Compacted, merge_small_parts

    compacted = []
    for store in outputs_in(output.store).values():
        with DriverLock(store, renders=False) as lock:
            compacted.append(
                merge_small_parts(HeldOutput(store, lock), lambda num: watch.show(Checked(num_rows=num)))
            )
    return Compacted(
        num_before=sum(one.num_before for one in compacted),
        num_after=sum(one.num_after for one in compacted),
        num_rows_merged=sum(one.num_rows_merged for one in compacted),
    )
