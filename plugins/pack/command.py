"""The command `framefleet pack`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from framefleet.api.commands import (
    AsJson,
    OutputToRead,
    StorageSets,
    Where,
    stderr,
    stdout,
)
from framefleet.api.errors import count_text
from framefleet.plugins.keep.replay.command import MovedModels, ReadableRoots, given_of

_Folder = Annotated[
    Path | None,
    Argument(
        metavar="FOLDER", help="New or empty folder to write. Default: NAME-pack here, for an output NAME."
    ),
]
_Rows = Annotated[
    int | None,
    Option(
        "--rows",
        min=1,
        metavar="N",
        help="Number of rows to pack. Default: 8, or all that --where and --picks choose.",
    ),
]
_Picks = Annotated[
    str | None,
    Option("--picks", metavar="PICKS.JSONL", help="Rows to choose from; --where can use its stars."),
]
_Seed = Annotated[int, Option("--seed", help="Random seed for choosing the rows.")]
_RowIds = Annotated[
    list[str] | None, Option("--row", metavar="ROW_ID", help="Pack this row instead of a sample; repeatable.")
]


def pack_command(
    output: OutputToRead,
    folder: _Folder = None,
    rows: _Rows = None,
    seed: _Seed = 0,
    where: Where = None,
    picks: _Picks = None,
    row_ids: _RowIds = None,
    models: MovedModels = None,
    roots: ReadableRoots = None,
    as_json: AsJson = False,
    sets: StorageSets = None,
) -> None:
    """Pack some clips, so that somebody else can render them again and compare.

    Writes their records, clips, input files, scripts, library versions and the model's digests into a folder.
    Weights, LoRAs and the code of your own recipes are not included.
    """
    from framefleet.api.jobs import storage_options
    from framefleet.plugins.pack.pack import pack_rows
    from framefleet.plugins.picks import picked

    options = storage_options(sets)
    consent = replace(given_of(models), roots=tuple(roots or []), storage_options=options)
    picked_rows = picked(picks, options)
    packed = pack_rows(
        output,
        folder,
        rows=rows,
        seed=seed,
        row_ids=row_ids or [],
        where=where,
        picks=picked_rows,
        given=consent,
    )
    if picked_rows is not None and where is None and rows is None:
        num_unknown = len(picked_rows) - len(packed.row_ids)
        if num_unknown:
            stderr.say(f"{count_text(num_unknown, 'pick')} without a record in this output")
    if as_json:
        stdout.say(json.dumps(asdict(packed)))
        return
    stdout.say(
        f"{count_text(len(packed.row_ids), 'row')}: {packed.folder}; its README.md says how to check them"
    )
    stdout.say(f"digest of the pack: {packed.digest}")
    for reason, count in Counter(packed.without_script.values()).items():
        stderr.say(f"no script for {count_text(count, 'row')}: {reason}")
