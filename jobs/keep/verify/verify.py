"""From an output to whether its files are what they were; and that or its rows rendered again, for Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from framefleet.jobs.job.job_json import JOB_JSON, read_claim
from framefleet.jobs.keep.replay.compare import Likeness
from framefleet.jobs.keep.replay.recorded_row import NOTHING, Given
from framefleet.jobs.keep.verify.rows import VerifiedRow, verified_rows
from framefleet.jobs.render.claim import differences_of
from framefleet.jobs.show.watch import Callback, Checked, Watch
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.damage import (
    ClipIndex,
    Damage,
    beside_parts,
    damage_below,
    damaged_records,
    strays,
)
from framefleet.pipeline.outputs.layout import CLAIM, RECORDS
from framefleet.pipeline.outputs.output import Output, claim_in_parts_as
from framefleet.pipeline.outputs.parts.seals import parts_in
from framefleet.pipeline.outputs.stores.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was found. rows: that were rendered again. damages: of files, leftovers too."""

    rows: tuple[VerifiedRow, ...] = ()
    damages: tuple[Damage, ...] = ()

    @property
    def verdicts(self) -> Counter[Likeness]:
        """How many rows there are of each."""
        return Counter(row.compared.verdict for row in self.rows)

    @property
    def is_well(self) -> bool:
        return all(row.is_well for row in self.rows) and all(one.is_leftover for one in self.damages)


def verify(
    output: str | Path,
    *,
    files: bool = False,
    sample: int = 8,
    seed: int = 0,
    row_ids: Collection[str] = (),
    by_fleet: bool = False,
    given: Given = NOTHING,
    sets: Sequence[str] = (),
) -> Verified:
    """Render some rows of an output again and compare them; or read all of its files, and compare digests.

    files: the latter. sample: number of rows, chosen by seed; row_ids: these, and no sample. by_fleet: as
    the job rendered them, with sets, as "fleet.workers=2", in place of what job.json says; else in this
    process. given: what the output is not trusted with. Raises JobError where it has no such rows.
    """
    watch, output = Callback(), str(output)
    if files:
        store = Output.open(str(output), given.storage_options).store
        return Verified(damages=tuple(damages_of(store, watch)))
    rows = verified_rows(
        output, watch, sample=sample, seed=seed, row_ids=row_ids, by_fleet=by_fleet, given=given, sets=sets
    )
    return Verified(rows=tuple(rows))


def damages_of(store: Store, watch: Watch) -> Iterator[Damage]:
    """Read every file of an output, and of its inner outputs; yield what is wrong, as it is found."""
    inner = Output(store).inner
    if not inner or parts_in(store, RECORDS) or store.exists(CLAIM):
        yield from _damages_in(store, watch)
    for name, one in inner.items():
        yield from (damage_below(name, damage) for damage in _damages_in(one.store, watch))


def _damages_in(store: Store, watch: Watch) -> Iterator[Damage]:
    if damage := job_damage(store):
        yield damage
    with closing(ClipIndex()) as index:
        yield from damaged_records(store, index, lambda count: watch.show(Checked(num_rows=count)))
        yield from beside_parts(store)
        yield from strays(store, index)


def job_damage(store: Store) -> Damage | None:
    """Return what is wrong with job.json: it is lost, damaged, or of another job than the parts say."""
    try:
        claim = read_claim(store)
    except FileNotFoundError:
        return Damage(kind="job", path=CLAIM, reason="it is not there")
    except JobError as error:
        return Damage(kind="job", path=CLAIM, reason=error.problem)
    try:
        original = claim_in_parts_as(store, JOB_JSON)
    except JobError:  # of a part, whose damage is reported as such
        return None
    differences = differences_of(original.model_dump(), claim.model_dump()) if original else []
    if not differences:
        return None
    return Damage(kind="job", path=CLAIM, reason=f"of another job than the records; {differences[0].strip()}")
