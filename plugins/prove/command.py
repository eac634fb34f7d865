"""The commands `framefleet prove` and `framefleet check`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

from rich.text import Text
from typer import Argument, Exit, Option

from framefleet.api.commands import (
    AsJson,
    OutputToRead,
    StorageSets,
    quiet_libraries,
    stderr,
    stdout,
    with_groups,
)
from framefleet.api.errors import count_text
from framefleet.plugins.keep.replay import command as replay
from framefleet.plugins.keep.replay.given import Given

_Folder = Annotated[
    Path | None,
    Argument(
        metavar="FOLDER",
        help="New or empty folder for the certificate. Default: NAME-certificate here, for an output NAME.",
    ),
]
_Rows = Annotated[int, Option("--rows", min=1, metavar="N", help="Number of rows to draw.")]
_Coin = Annotated[
    str | None,
    Option(
        "--coin",
        metavar="TEXT",
        help="Public value that nobody knew when the seal was published, e.g. a lottery number.",
    ),
]
_Certificate = Annotated[
    str, Argument(metavar="CERTIFICATE", help="Folder or URL of a certificate, or its certificate.json.")
]


def prove_command(
    output: OutputToRead,
    folder: _Folder = None,
    rows: _Rows = 60,
    coin: _Coin = None,
    roots: replay.ReadableRoots = None,
    as_json: AsJson = False,
    sets: StorageSets = None,
) -> None:
    """Seal all records; with --coin, write a certificate of random rows that anybody can check.

    Run it once without --coin and publish the seal. When a public value that nobody could choose is known,
    run it again with this value.
    """
    from framefleet.api.jobs import storage_options
    from framefleet.plugins.prove.prove import prove

    consent = Given(roots=tuple(roots or []), storage_options=storage_options(sets))
    proven = prove(output, folder, rows=rows, coin=coin, given=consent)
    if as_json:
        stdout.say(json.dumps(asdict(proven)))
        return
    missing = f", {proven.num_missing:,} without a record" if proven.num_missing else ""
    stdout.say(f"seal of {count_text(proven.num_rows, 'row')}{missing}: {proven.seal}")
    if proven.folder is None:
        stderr.say("publish this seal; later, draw rows with --coin and a value that nobody knows yet")
    else:
        stdout.say(f"{count_text(len(proven.row_ids), 'row')} drawn: {proven.folder}")


@with_groups
def check_command(
    certificate: _Certificate,
    as_json: AsJson = False,
    given: Callable[[], Given] = replay.given_of,
    sets: StorageSets = None,
) -> None:
    """Render the rows of a certificate again with the weights, and say what this proves about all rows.

    Exit code 0: all are equal. 1: some are not, e.g. on another GPU, or have no record. 2: the certificate
    was altered, or no row could be rendered.
    """
    from framefleet.api.jobs import storage_options, watch_on
    from framefleet.plugins.prove.certificate import read_certificate
    from framefleet.plugins.prove.check import certificate_at, checked_rows, found_of

    consent = replace(given(), storage_options=storage_options(sets))
    quiet_libraries()
    store, path = certificate_at(certificate, consent)
    drawn = read_certificate(store, path)
    rows = []
    with watch_on(stderr) as watch:
        for row in checked_rows(store, drawn, watch, consent):
            rows.append(row)
            if not as_json:
                verdict = Text(row.reason or "equal", style="red" if row.reason else "green")
                stdout.say(Text(f"{row.row_id}: ").append(replay.unforged(verdict.plain), verdict.style))
    found = found_of(drawn, rows)
    if as_json:
        names = ("num_equal", "num_other_machine", "most_off", "most_far", "bound")
        values = {name: getattr(found, name) for name in names}
        stdout.say(json.dumps(asdict(found) | values, ensure_ascii=False))
    else:
        stdout.say(f"seal {found.seal}, coin {replay.unforged(found.coin)}")
        stdout.say(found.bound)
    raise Exit(0 if found.num_equal == len(found.rows) else 1)
