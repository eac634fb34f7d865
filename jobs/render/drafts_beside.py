"""From an output to that of its drafts, which lies in it: for commands that look after both."""

from __future__ import annotations

from dataclasses import replace

from framefleet.jobs.render.claimed import draft_folder, find_claim
from framefleet.jobs.render.own_tables import DRAFTS
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.damage import Damage
from framefleet.pipeline.outputs.parts.records import RECORDS
from framefleet.pipeline.outputs.stores.store import Store


def drafts_of(store: Store) -> Store | None:
    """Return the output of an output's drafts; None where it has none, or nothing says whose they are."""
    drafts = draft_folder(store)
    if drafts is None:
        return None
    try:
        claim = find_claim(store)
    except JobError:  # told as damage, and put back by `repair`
        return None
    is_anothers = claim is not None and (claim.job.model_extra or {}).get("draft") is None
    return None if is_anothers else drafts


def damage_below(damage: Damage) -> Damage:
    """Return damage among drafts, named as the files of the output that they lie in."""
    return replace(damage, path=f"{DRAFTS}/{damage.path}")


def no_records(store: Store) -> JobError:
    """Return what is said of an output in which no row is done."""
    if drafts := drafts_of(store):
        return JobError(
            f"{store.url_of('')} has drafts, and no row in full so far",
            f"drafts are an output of their own: give {drafts.url_of('')}",
        )
    return JobError(f"{store.url_of(RECORDS)} has no records", "give the output of a render job")
