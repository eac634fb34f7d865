"""The command `framefleet forget`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

from typer import Option

from framefleet.api.commands import AsJson, OutputToRead, StorageSets, resumable, stderr, stdout
from framefleet.api.errors import count_text, names_text

_RowIds = Annotated[list[str] | None, Option("--row", metavar="ROW_ID", help="Row to forget; repeatable.")]
_Where = Annotated[
    str | None, Option("--where", metavar="SQL", help="Forget rows for which this condition is true.")
]
_DryRun = Annotated[bool, Option("--dry-run", help="Print the number of rows. Change nothing.")]


@resumable
def forget_command(
    output: OutputToRead,
    where: _Where = None,
    row_ids: _RowIds = None,
    dry_run: _DryRun = False,
    as_json: AsJson = False,
    sets: StorageSets = None,
) -> None:
    """Delete rows for good: clips, records, previews, answers, pages, and everything else that quotes them.

    Rows of the job's table with the same row_id are not rendered again. If it is killed, run it again. Prints
    where else these rows may be, e.g. in exports. Refused while a job writes to the output.
    """
    from framefleet.api.jobs import output_at, watch_on
    from framefleet.plugins.forget.forget import forget_rows

    with watch_on(stderr) as watch:
        forgotten = forget_rows(
            output_at(output, sets), watch, where=where, row_ids=row_ids or [], dry_run=dry_run
        )
    if as_json:
        stdout.say(json.dumps(asdict(forgotten)))
        return
    rows = count_text(forgotten.num_rows, "row")
    if len(forgotten.sharing) == 1:
        rows += f", and row {forgotten.sharing[0]:,} of the table, which shares its clip"
    elif forgotten.sharing:
        rows += f", and {count_text(len(forgotten.sharing), 'row')} of the table that share their clips"
    if dry_run:
        stdout.say(f"would be forgotten: {rows}")
    else:
        files = count_text(forgotten.num_deleted, "file")
        stdout.say(f"forgotten: {rows}; {files} deleted, {forgotten.num_rewritten:,} rewritten")
    if forgotten.num_earlier:
        earlier = count_text(forgotten.num_earlier, "row")
        stderr.say(f"of an earlier run that was killed before it ended: {earlier}")
    if forgotten.pages:
        stderr.say(f"deleted whole, to be made again: {names_text(forgotten.pages)}")
    for line in forgotten.left:
        stderr.say(f"not deleted: {line}")
