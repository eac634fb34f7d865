"""The command `framefleet verify`; also prints damages for `framefleet repair`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from rich import box
from rich.table import Table
from rich.text import Text
from typer import Exit, Option

from framefleet.api.commands import (
    AsJson,
    OutputToRead,
    Sets,
    Watch,
    quiet_libraries,
    stderr,
    stdout,
    with_groups,
)
from framefleet.api.errors import command, count_text
from framefleet.plugins.keep.replay import command as replay
from framefleet.plugins.keep.replay.given import Given

if TYPE_CHECKING:
    from framefleet.plugins.keep.damage import Damage, DamageKind
    from framefleet.plugins.keep.verify.verify import VerifiedRow

_STYLES = {"bit-exact": "green"} | dict.fromkeys(
    ("off by one", "off by about one", "other machine"), "yellow"
)
MAX_DAMAGES_SHOWN = 20  # a screenful; all are counted, and --json lists them all

_SAID: dict[DamageKind, str] = {
    "missing": "files that are gone, but have a record",
    "size": "files whose size differs from their record",
    "bytes": "files whose bytes differ from their record",
    "unreadable": "unreadable files",
    "record": "records that contradict themselves, their clip or job.json",
    "doubled": "records that a later one of the same row replaces",
    "part": "damaged parts",
    "job": "job.json lost, damaged or of another job",
    "late": "parts that framefleet ignores, but other readers of records/ see",
    "stray": "files that no record names",
    "uncommitted": "clips without a record yet, which this run or the next will add",
    "foreign": "files that framefleet did not write",
}

_Files = Annotated[
    bool, Option("--files", help="Compare the SHA-256 of every file with its record. Render nothing.")
]
_Sample = Annotated[
    int | None,
    Option("--sample", min=1, metavar="N", help="Number of rows to render again. Default: 8."),
]
_Seed = Annotated[int, Option("--seed", help="Random seed for choosing which rows to check.")]
_RowIds = Annotated[
    list[str] | None,
    Option("--row", metavar="ROW_ID", help="Check this row instead of a sample; repeatable."),
]
_FleetJob = Annotated[
    str | None,
    Option("--fleet", metavar="JOB.YAML", help="Render on the fleet of the output's job file."),
]


@with_groups
def verify_command(
    output: OutputToRead,
    files: _Files = False,
    sample: _Sample = None,
    seed: _Seed = 0,
    row_ids: _RowIds = None,
    fleet_job: _FleetJob = None,
    as_json: AsJson = False,
    given: Callable[[], Given] = replay.given_of,
    roots: replay.ReadableRoots = None,
    sets: Sets = None,
) -> None:
    """Check an output: render some rows again and compare. With --files, check every file instead.

    Exit code 0: all rows that were checked are bit-exact; with --files, no file is damaged. 1: some are not;
    each row's verdict says whether its record, its file or its pixels are wrong. 2: no row could be rendered.
    """
    from framefleet.api.jobs import load_job, storage_options
    from framefleet.api.outputs import Store, dated
    from framefleet.plugins.keep.pack_list import digest_of_list
    from framefleet.plugins.keep.verify.verify import check_one_way, verified_rows

    options = storage_options(sets, is_alone=not fleet_job)
    consent = replace(given(), roots=tuple(roots or []), storage_options=options)
    quiet_libraries()
    by_fleet, row_ids = fleet_job is not None, row_ids or []
    check_one_way(files, sample=sample, seed=seed, row_ids=row_ids, by_fleet=by_fleet, given=consent)
    if digest := digest_of_list(Store(dated(output), options)):
        stderr.say(f"digest of the pack: {digest}; compare it with the one you were given")
    if files:
        is_well = show_damages(output, options, as_json=as_json)
    else:
        verify = partial(
            verified_rows,
            output,
            sample=sample,
            seed=seed,
            row_ids=row_ids,
            job=load_job(fleet_job, sets or []) if fleet_job else None,
            given=consent,
        )
        is_well = show_verified(verify, as_json=as_json)
    raise Exit(0 if is_well else 1)


def show_damages(output: str, storage_options: Mapping[str, Any], *, as_json: bool) -> bool:
    """Read every file and print what is wrong; return whether all is well."""
    from framefleet.api.jobs import watch_on
    from framefleet.api.outputs import Output
    from framefleet.cluster.driver.lock import newest_holder
    from framefleet.plugins.keep.verify.verify import damages_of

    store = Output.open(output, storage_options).store
    damages = DamageList(as_json=as_json)
    with watch_on(stderr) as watch:
        for damage in damages_of(store, watch):
            damages.add(damage)
    damages.show()
    driver = newest_holder(store)
    is_at_work = driver is not None and not driver.is_gone()  # it may still write
    is_doubled = damages.num_found["late"] > 0 and not is_at_work
    if damages.num_damages:
        stderr.say(
            f"`{command('repair', store.url_of(''))}` removes what is damaged; then render the job again"
        )
    elif is_doubled:
        stderr.say("all records are sound, but DuckDB and pandas also read the parts that framefleet ignores")
        stderr.say(f"`{command('compact', store.url_of(''))}` deletes these parts")
    else:
        stderr.say(f"all is well: {store.url_of('')}")
    return not (damages.num_damages or is_doubled)


def show_verified(verify: Callable[[Watch], Iterator[VerifiedRow]], *, as_json: bool) -> bool:
    """Print how the rows that `verify` renders again compare; return whether all are bit-exact."""
    from framefleet.api.jobs import watch_on

    verdicts, errors = Counter[str](), []
    with watch_on(stderr) as watch:
        for row in verify(watch):
            verdicts[row.compared.verdict] += 1
            errors += [row.error] if row.error else []
            if as_json:
                names = ("name", "then", "now")
                values = {
                    "row_id": row.record.row_id,
                    "worker": row.record.worker,
                    "node": row.record.node,
                    **asdict(row.compared),
                    "is_well": row.is_well,
                    "damages": [asdict(damage) for damage in row.damages],
                    "differences": [dict(zip(names, one, strict=True)) for one in row.differences],
                    "error": str(row.error) if row.error else None,
                }
                stdout.say(json.dumps(values, ensure_ascii=False))
                continue
            verdict, record = row.compared.verdict, row.record
            line = Text(f"{record.row_id}: ").append(verdict, style=_STYLES.get(verdict, "red"))
            worker = f" by {record.worker}" if record.worker else ""  # adopted clips have none
            rendered = f"rendered{worker} on {record.node}"
            parts = [*row.compared.details(), row.error.problem if row.error else rendered]
            stdout.say(line.append(replay.unforged("".join(f", {part}" for part in parts))))
            for remark in row.compared.remarks():
                stdout.say(replay.unforged(f"  {remark}"))
            for damage in row.damages:
                stdout.say(Text(f"  {damage.path}: ").append(damage.reason or damage.kind, style="red"))
            for name, then, now in row.differences:
                stdout.say(replay.unforged(f"  {name}: {then} then, {now} now"))
    if as_json:
        stdout.say(json.dumps({"num_rows": verdicts.total(), "verdicts": dict(verdicts)}))
    if len(errors) == verdicts.total():
        raise errors[0]
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.most_common())
    stderr.say(f"{count_text(verdicts.total(), 'row')}: {counts}")
    return set(verdicts) == {"bit-exact"}


class DamageList:
    """Counts damages, and keeps the first ones to print. With as_json, prints each at once."""

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
        """Print the first damages, and the number of each kind."""
        if self._as_json:
            stdout.say(json.dumps({"found": dict(self.num_found), "num_damages": self.num_damages}))
            return
        if self._first:
            table = Table("file", "what", "row", box=box.SIMPLE_HEAD)
            for damage in self._first:
                table.add_row(damage.path, damage.reason or damage.kind, damage.row_id or "")
            stdout.print(table)
        if more := self.num_found.total() - len(self._first):
            stdout.say(f"and {more:,} more; --json lists all")
        for kind, count in self.num_found.items():
            stdout.say(f"{_SAID[kind]}: {count:,}")
