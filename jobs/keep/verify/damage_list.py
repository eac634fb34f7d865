"""What is printed of damages: a table of the first of them, or a line of JSON for each."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

from rich import box
from rich.table import Table

from framefleet.jobs.show.console import stdout
from framefleet.pipeline.outputs.damage import Damage, DamageKind

MAX_DAMAGES_SHOWN = 20  # a screenful; more are counted, and --json has them all

_SAID: dict[DamageKind, str] = {
    "missing": "gone, but has a record",
    "size": "of another size than its record says",
    "bytes": "of other bytes than its record says",
    "unreadable": "that cannot be read",
    "doubled": "rows that a later record names too",
    "part": "damaged parts",
    "job": "job.json lost, damaged or another's",
    "late": "parts that came after their driver had lost the output",
    "stray": "files that no record names",
    "uncommitted": "clips whose driver died before their records were written",
    "foreign": "files that framefleet did not write",
}


class DamageList:
    """Takes what is wrong, one after the other; counts it all and keeps the first."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._first: list[Damage] = []
        self.num_found: Counter[DamageKind] = Counter()
        self.num_damages = 0

    def add(self, damage: Damage) -> None:
        self.num_found[damage.kind] += 1
        self.num_damages += not damage.is_leftover
        if self._as_json:
            stdout.say(json.dumps(asdict(damage) | {"is_leftover": damage.is_leftover}, ensure_ascii=False))
        elif len(self._first) < MAX_DAMAGES_SHOWN:
            self._first.append(damage)

    def show(self) -> None:
        """Print what was kept, and how many there are of each kind."""
        if self._as_json:
            stdout.say(json.dumps({"found": dict(self.num_found), "num_damages": self.num_damages}))
            return
        if self._first:
            stdout.print(self._table())
        for kind, count in self.num_found.items():
            stdout.say(f"{count:,} {_SAID[kind]}")

    def _table(self) -> Table:
        table = Table("file", "what", "row", box=box.SIMPLE_HEAD)
        for damage in self._first:
            table.add_row(damage.path, damage.reason or damage.kind, damage.row_id or "")
        return table
