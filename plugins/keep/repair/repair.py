"""Remove what is damaged from an output; given its job file, render the missing rows again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from framefleet.api.commands import Callback, Checked, Overview, Watch
from framefleet.api.errors import JobError, count_text
from framefleet.api.jobs import (
    JOB_JSON,
    Job,
    Progress,
    Summary,
    load_job,
    storage_options,
    store_of_job,
)
from framefleet.api.outputs import (
    CLAIM,
    HOW,
    RECORDS,
    DriverLock,
    HeldOutput,
    Output,
    Store,
    outputs_in,
    read_as,
)
from framefleet.cluster.driver.lock import check_not_stopped
from framefleet.jobs.job.paths import JOB_FILES
from framefleet.jobs.render.render import render_job
from framefleet.plugins.keep.damage import (
    ClipIndex,
    Damage,
    DamageKind,
    beside_parts,
    damage_below,
    damaged_records,
    other_parts,
    strays,
)
from framefleet.plugins.keep.verify.verify import job_damage

_SWEPT_AT_ONCE = 1000  # files deleted between two checks of the lock


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Repaired(Overview):
    """What was done to an output."""

    store: Store
    repairs: Repairs
    is_job_back: bool = False  # job.json was put back
    summary: Summary | None = None  # of the render, if any
    inner: Mapping[str, Repaired] = field(default_factory=dict)  # inner outputs, by name

    def overview(self) -> Mapping[str, object]:
        return {
            "output": self.store.url_of(""),
            "damages": f"{sum(self.repairs.num_found.values()):,}",
            "rows without record": f"{self.repairs.num_rows:,}",
            "job.json": "put back" if self.is_job_back else None,
            "rendered": None if self.summary is None else count_text(self.summary.done, "row"),
            **{
                name: count_text(sum(one.repairs.num_found.values()), "damage")
                for name, one in self.inner.items()
            },
        }


def repair(
    job: Job | str | Path | Mapping[str, Any],
    *,
    dry_run: bool = False,
    sets: Sequence[str] = (),
    on_progress: Callable[[Progress], None] | None = None,
) -> Repaired:
    """Remove what is damaged from an output. Given its job, render the missing rows again.

    job: an output, or a job file's path or content. dry_run: change nothing, and return what would be done.
    sets: e.g. "fleet.workers=2"; for an output, only "storage_options.key=...". Raises as `render` does.
    """
    return repair_job(job, Callback(on_progress), dry_run=dry_run, sets=sets)


def repair_job(
    job: Job | str | Path | Mapping[str, Any],
    watch: Watch,
    *,
    dry_run: bool = False,
    sets: Sequence[str] = (),
    found: Callable[[Damage], None] = lambda damage: None,
) -> Repaired:
    """Do what `repair` promises, reporting to `watch`. found: called for each damage."""
    is_output = isinstance(job, str | Path) and (Path(job).suffix not in JOB_FILES or Path(job).is_dir())
    loaded = None if is_output else load_job(job, sets)
    if loaded is None:
        store = Output.open(str(job), storage_options(sets)).store
    else:
        store = Output.open(store_of_job(loaded)).store
    repaired = Repaired(store=store, repairs=Repairs())
    if "" in outputs_in(store):
        repaired = _mended(store, watch, found, dry_run=dry_run)
    inner = {}
    for name, one in Output(store).inner.items():  # opened again: job.json may be back, and names them

        def note(damage: Damage, name: str = name) -> None:
            found(damage_below(name, damage))

        inner[name] = _mended(one.store, watch, note, dry_run=dry_run)
    repaired = replace(repaired, inner=inner)
    if loaded is None or dry_run:
        return repaired
    return replace(repaired, summary=render_job(loaded, watch))


def _mended(store: Store, watch: Watch, found: Callable[[Damage], None], *, dry_run: bool) -> Repaired:
    """Remove what is damaged from an output. dry_run: change nothing."""
    if damage := job_damage(store):
        found(damage)
    if dry_run:
        return Repaired(store=store, repairs=mend(store, None, watch, found), is_job_back=damage is not None)
    with DriverLock(store, renders=False) as lock:
        is_job_back = put_back(HeldOutput(store, lock))
        repairs = mend(store, HeldOutput(store, lock), watch, found)
        lock.seal()  # parts were replaced
    check_not_stopped(store, lock.epoch, ": what was repaired stays")
    return Repaired(store=store, repairs=repairs, is_job_back=is_job_back)


def put_back(held: HeldOutput) -> bool:
    """Write job.json again if it is lost or damaged; return whether it was.

    The damaged file moves to damaged/. Raises JobError if no part has a copy.
    """
    if (damage := job_damage(store := held.store)) is None:
        return False
    if (text := held.job()) is None:
        problem = f"{store.url_of(CLAIM)}: {damage.reason}, and no part in records/ has a copy"
        raise JobError(problem, "restore it, or choose another output")
    read_as(JOB_JSON, text, store.url_of(RECORDS))  # raises if it is not a valid job.json
    held.hold.check()
    if store.exists(CLAIM):
        held.set_aside(CLAIM)
    store.write(CLAIM, text.encode())
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Repairs:
    """What was wrong, and what was done about it, or would be done."""

    num_found: Mapping[DamageKind, int] = field(default_factory=dict)
    num_rows: int = 0  # that lost their record
    num_set_aside: int = 0  # damaged parts and unreadable files, moved to damaged/
    num_with_records: int = 0  # of these, parts of records/ and their files
    num_swept: int = 0  # deleted files that no record named


def mend(
    store: Store,
    held: HeldOutput | None,
    watch: Watch,
    found: Callable[[Damage], None] = lambda damage: None,
) -> Repairs:
    """Read the whole output, and remove what is damaged. found: called for each damage.

    held: None changes nothing, and returns what would be done.
    """
    counts: Counter[DamageKind] = Counter()
    hurt: set[str] = set()  # rows that lose their record, so that nothing names their files any more

    def note(damage: Damage) -> Damage:
        if damage.kind != "stray" or damage.row_id not in hurt:
            counts[damage.kind] += 1
            found(damage)
        if damage.kind in (*HOW, "record") and damage.row_id:
            hurt.add(damage.row_id)
        return damage

    with closing(ClipIndex()) as index:
        read = damaged_records(store, index, lambda count: watch.show(Checked(num_rows=count)))
        aside = [damage.path for damage in map(note, read) if damage.kind in ("part", "unreadable")]
        num_with_records = len(aside)
        aside += [damage.path for damage in map(note, other_parts(store))]
        late = [damage.path for damage in map(note, beside_parts(store)) if damage.kind == "late"]
        if held:
            for path in aside:
                held.set_aside(path)
        num_rows = 0
        # No part may name a row whose files are damaged, or that a later record names.
        for path, row_ids in index.take_spare():
            num_rows += len(row_ids)
            if held:
                held.take_out(path, row_ids)
        # A row without a record may get one that names its stray. The run that writes it deletes the others.
        swept_later: set[tuple[str, str]] = set()

        def spare() -> Iterator[str]:
            for damage in map(note, strays(store, index)):
                if damage.kind == "stray" and damage.row_id is not None:
                    if index.has(damage.row_id):
                        yield damage.path
                    else:
                        swept_later.add((damage.path, damage.row_id))

        unnamed = chain(late, spare())
        num_swept = 0
        while some := list(islice(unnamed, _SWEPT_AT_ONCE)):
            num_swept += len(some)
            if held:
                held.delete(some)
        if held:
            held.sweep_later(swept_later)
    return Repairs(
        num_found=counts,
        num_rows=num_rows,
        num_set_aside=len(aside),
        num_with_records=num_with_records,
        num_swept=num_swept,
    )
