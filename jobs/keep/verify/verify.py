"""From an output to whether it is what it was, for Python."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from framefleet.jobs.keep.replay.compare import Likeness
from framefleet.jobs.keep.replay.recorded_row import NOTHING, Given
from framefleet.jobs.keep.verify.choice import SAMPLE, RowChoice
from framefleet.jobs.keep.verify.files import damages_of
from framefleet.jobs.keep.verify.rows import VerifiedRow, verified_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.damage import Damage
from framefleet.pipeline.outputs.output import Output


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
    sample: int = SAMPLE,
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
    choice = RowChoice(sample=sample, seed=seed, row_ids=tuple(row_ids), by_fleet=by_fleet)
    return Verified(rows=tuple(verified_rows(output, choice, given, sets, watch)))
