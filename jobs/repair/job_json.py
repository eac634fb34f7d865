"""job.json put back as the parts of an output have it, where it is lost, damaged or another job's."""

from __future__ import annotations

from framefleet.jobs.render.claimed import RENDER, claim_in_parts
from framefleet.jobs.verify.files import job_damage
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.parts.parts import job_in_parts
from framefleet.pipeline.outputs.parts.seals import Hold
from framefleet.pipeline.outputs.parts.set_aside import set_aside
from framefleet.pipeline.outputs.stores.store import Store


def put_back(store: Store, hold: Hold) -> bool:
    """Write job.json anew if it is not what it was; return whether it was not. Only for who holds the output.

    What is there is kept in damaged/. Raises JobError where no part holds it.
    """
    if (damage := job_damage(store)) is None:
        return False
    text = job_in_parts(store)
    if text is None or claim_in_parts(store) is None:
        raise JobError(
            f"{store.url_of(RENDER)}: {damage.reason}, and no part of records/ holds it",
            "put it back as it was, or choose another output",
        )
    hold.check()
    if store.exists(RENDER):
        set_aside(store, RENDER, hold)
    store.write(RENDER, text.encode())
    return True
