"""`framefleet compact`: what is typed, and what it prints."""

from __future__ import annotations

import json
from dataclasses import asdict

from framefleet.jobs.options import AsJson, OutputToRead, StorageSets, Verbose
from framefleet.jobs.show.console import reporting, stderr, stdout


def compact_command(
    output: OutputToRead, as_json: AsJson = False, sets: StorageSets = None, verbose: Verbose = False
) -> None:
    """Merge many small files of records into a few large ones.

    A job writes one every few seconds; with fewer, resuming, reports and queries of large outputs are faster.
    Records stay the same, and no clip is touched. Refused while a job writes to the output.
    """
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import output_at
        from framefleet.jobs.keep.compact.compact import compact_output
        from framefleet.jobs.show.progress import watch_on

        with watch_on(stderr) as watch:
            found = compact_output(output_at(output, sets), watch)
        if as_json:
            stdout.say(json.dumps(asdict(found)))
        else:
            stdout.say(f"{found.num_before:,} parts of records before, {found.num_after:,} now")
