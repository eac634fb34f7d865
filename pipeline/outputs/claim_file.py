"""job.json, which says what an output was made with, and each part of its records repeats."""

from __future__ import annotations

import logging

from pydantic import TypeAdapter

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.layout import CLAIM, RECORDS
from framefleet.pipeline.outputs.parts.part_names import parts_in
from framefleet.pipeline.outputs.parts.parts import job_in_parts
from framefleet.pipeline.outputs.stores.json_file import Value, read_as, read_json
from framefleet.pipeline.outputs.stores.store import Store

log = logging.getLogger(__name__)


def find_claim_as(store: Store, kind: TypeAdapter[Value]) -> Value | None:
    """Return what job.json says, or the parts where it is lost or damaged; None where the output is nobody's.

    Raises JobError where it is damaged, or lost although there are records, and no part has it.
    """
    try:
        return read_json(store, CLAIM, kind)
    except FileNotFoundError:
        if not parts_in(store, RECORDS):
            return None
        lost = JobError(
            f"{store.url_of('')} has records, but no {CLAIM}, which says of what job",
            "put it back, or choose another output",
        )
    except JobError as error:
        lost = error
    if (found := claim_in_parts_as(store, kind)) is None:
        raise lost
    log.warning("%s: %s; the parts of its records have it", store.url_of(CLAIM), lost.problem)
    return found


def claim_in_parts_as(store: Store, kind: TypeAdapter[Value]) -> Value | None:
    """Return what job.json says by the newest part that has it; None where none does."""
    text = job_in_parts(store)
    return None if text is None else read_as(kind, text, store.url_of(RECORDS))
