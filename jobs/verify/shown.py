"""What `framefleet verify` does, and what it prints about it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from framefleet.jobs.show.console import stderr, stdout
from framefleet.jobs.show.libraries import quiet_libraries
from framefleet.jobs.show.progress import watch_on
from framefleet.jobs.verify.damages_shown import DamageList

if TYPE_CHECKING:
    from framefleet.jobs.replay.recorded_row import Given
    from framefleet.jobs.verify.choice import RowChoice
    from framefleet.jobs.verify.rows import VerifiedRow

_STYLES = {"bit-exact": "green", "off by one": "yellow"}


def show_damages(output: str, storage_options: Mapping[str, Any], *, as_json: bool) -> bool:
    """Read every file and print what is wrong; return whether all is well."""
    quiet_libraries()
    from framefleet.jobs.verify.files import damages_of
    from framefleet.pipeline.outputs.stores.store import Store

    store, damages = Store(output, storage_options), DamageList(as_json=as_json)
    with watch_on(stderr) as watch:
        for damage in damages_of(store, watch):
            damages.add(damage)
    damages.show()
    if damages.num_damages:
        stderr.say(f"`framefleet repair {store.url_of('')}` takes out what is damaged and renders it again")
    else:
        stderr.say(f"all is well: {store.url_of('')}")
    return not damages.num_damages


def show_verified(
    output: str, choice: RowChoice, given: Given, *, sets: Sequence[str], as_json: bool
) -> bool:
    """Render rows again and print how they compare; return whether all have the same bits."""
    quiet_libraries()
    from framefleet.jobs.verify.rows import verified_rows

    num_rows, num_well, errors = 0, 0, []
    with watch_on(stderr) as watch:
        for row in verified_rows(output, choice, given, sets, watch):
            num_rows, num_well = num_rows + 1, num_well + row.is_well
            errors += [row.error] if row.error else []
            if as_json:
                stdout.say(json.dumps(_values(row), ensure_ascii=False))
            else:
                _show(row)
    if len(errors) == num_rows:
        raise errors[0]
    stderr.say(f"{num_well:,} of {num_rows:,} rows are well")
    return num_well == num_rows


def _show(row: VerifiedRow) -> None:
    verdict, record = row.compared.verdict, row.record
    line = Text(f"{record.row_id}: ").append(verdict, style=_STYLES.get(verdict, "red"))
    stdout.say(line.append(_plain(f"{_how_far(row)}, rendered by {record.worker} on {record.node}")))
    for damage in row.damages:
        stdout.say(Text(f"  {damage.path}: ").append(damage.kind, style="red"))
    for name, then, now in row.differences:
        stdout.say(_plain(f"  {name}: {then} then, {now} now"))


def _how_far(row: VerifiedRow) -> str:
    compared = row.compared
    parts = [""]
    if compared.which:
        parts.append(" and ".join(compared.which))
    if compared.num_pixels is not None:
        parts.append(f"{compared.num_pixels:,} pixels")
    if compared.psnr_db is not None:
        parts.append(f"PSNR {compared.psnr_db:.1f} dB")
    if row.error:
        parts.append(str(row.error))
    return ", ".join(parts)


def _plain(text: str) -> str:
    """Return text of records, which could forge lines, in one line."""
    return text.replace("\n", "\\n")


def _values(row: VerifiedRow) -> dict[str, Any]:
    """Return what --json tells of a row."""
    return {
        "row_id": row.record.row_id,
        "worker": row.record.worker,
        "node": row.record.node,
        **asdict(row.compared),
        "is_well": row.is_well,
        "damages": [asdict(damage) for damage in row.damages],
        "differences": [dict(zip(("name", "then", "now"), one, strict=True)) for one in row.differences],
        "error": str(row.error) if row.error else None,
    }
