"""Rows of an output rendered again by a fleet: the same job, by the ordinary means of `render`, elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from framefleet.jobs.job.output import below
from framefleet.jobs.render.chosen import CHOSEN
from framefleet.jobs.render.claimed_job import claimed_job
from framefleet.jobs.render.render import render_rows
from framefleet.jobs.show.watch import Watch
from framefleet.pipeline.outputs.stores.store import Store

SCRATCH = ".verify"  # below the output, where every machine can write; hidden from readers of data


@contextmanager
def rendered_by_fleet(
    output: str, row_ids: Collection[str], sets: Sequence[str], watch: Watch, *, run: str
) -> Iterator[Store]:
    """Yield an output that holds these rows, rendered now, as far as they could be; it goes afterwards.

    sets: as of `load_job`, in place of what job.json says. run: a name that no other such render has.
    """
    job = claimed_job(output, sets)
    place = f"{output.rstrip('/')}/{SCRATCH}/{run}"
    try:
        plain = job.model_copy(update={"output": place, "scores": [], "draft": None})
        table = below(job, f"{CHOSEN}/*.parquet") if job.draft else None
        render_rows(plain, watch, only=row_ids, table=table)
        yield Store(place, job.storage_options)
    finally:
        Store(output, job.storage_options).delete_all(f"{SCRATCH}/{run}")
