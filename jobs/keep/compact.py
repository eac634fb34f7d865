"""`framefleet compact`: from an output with many small parts of records to one with a few large ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from framefleet.jobs.options import AsJson, OutputToRead, StorageSets, Verbose
from framefleet.jobs.show.console import reporting, stderr, stdout

if TYPE_CHECKING:
    from framefleet.pipeline.outputs.output import Output
    from framefleet.pipeline.outputs.parts.compaction import Compacted


def compact_command(
    output: OutputToRead, as_json: AsJson = False, sets: StorageSets = None, verbose: Verbose = False
) -> None:
    """Put many small files of records together to a few large ones, which hold the same.

    A job writes one every few seconds; with fewer, resuming, reports and queries of large outputs are faster.
    No clip is touched. Refused while a job writes to the output.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import output_at
        from framefleet.jobs.show.progress import watch_on
        from framefleet.jobs.show.progress_values import Checked

        with watch_on(stderr) as watch:
            found = _compacted(output_at(output, sets), lambda num: watch.show(Checked(num_rows=num)))
        if as_json:
            stdout.say(json.dumps(asdict(found)))
        else:
            stdout.say(f"{found.num_before:,} parts of records before, {found.num_after:,} now")


def compact(output: str, *, storage_options: Mapping[str, Any] | None = None) -> Compacted:
    """Put the small parts of records of an output together to large ones, and of its drafts.

    storage_options: what fsspec takes. Raises JobError where there is no output, a job writes to it, or a
    part is damaged; StoreError.
    """
    from framefleet.pipeline.outputs.output import Output

    return _compacted(Output.open(output, storage_options), lambda num: None)


def _compacted(output: Output, on_rows: Callable[[int], None]) -> Compacted:
    from framefleet.cluster.driver.lock import DriverLock
    from framefleet.pipeline.outputs.parts import compaction

    drafts = output.drafts
    if drafts is not None:
        _compacted(drafts, on_rows)
    with DriverLock(output.store) as lock:
        found = compaction.compact_records(output.store, lock, on_rows)
        lock.seal()  # parts were replaced
    return found
