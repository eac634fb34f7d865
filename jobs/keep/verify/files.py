"""From an output to all that is not as it was committed: job.json, parts, clips, and what nothing names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from framefleet.jobs.job.job_json import claim_in_parts, read_claim
from framefleet.jobs.render.claim import differences_of
from framefleet.jobs.show.progress_values import Checked
from framefleet.jobs.show.watch import Watch
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.clip_index import ClipIndex
from framefleet.pipeline.outputs.damage import Damage, beside_parts, damage_of_drafts, damaged_records, strays
from framefleet.pipeline.outputs.layout import CLAIM, RECORDS
from framefleet.pipeline.outputs.output import Output
from framefleet.pipeline.outputs.parts.part_names import parts_in
from framefleet.pipeline.outputs.stores.store import Store


def damages_of(store: Store, watch: Watch) -> Iterator[Damage]:
    """Read every file of an output, and of its drafts; yield what is wrong, as it is found."""
    drafts = Output(store).drafts
    if drafts is None or parts_in(store, RECORDS) or store.exists(CLAIM):
        yield from _damages_in(store, watch)
    if drafts:
        yield from map(damage_of_drafts, _damages_in(drafts.store, watch))


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
        original = claim_in_parts(store)
    except JobError:  # of a part, whose damage is reported as such
        return None
    differences = differences_of(original.model_dump(), claim.model_dump()) if original else []
    if not differences:
        return None
    return Damage(kind="job", path=CLAIM, reason=f"of another job than the records; {differences[0].strip()}")
