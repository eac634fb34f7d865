"""From a job and its rows to the lanes of its fleet, and what a worker of each needs.

A process that has run a user's code renders nothing else, and what it remembers is its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from framefleet.cluster.driver.encoding import ENCODER_POOL, encoding_setup
from framefleet.cluster.worker.messages import WorkerSetup
from framefleet.jobs.job.schema import Job
from framefleet.jobs.render.resolve import ResolvedJob
from framefleet.jobs.render.survey import Survey
from framefleet.pipeline.errors import TableError
from framefleet.pipeline.outputs.frames.result import KeptSteps
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.lane_key import LaneKey, lane_named
from framefleet.pipeline.rows.tables.index import RowIndex


def lanes_named(resolved: ResolvedJob) -> list[LaneKey]:
    """Return the lanes of the job's recipe, and of those that rows have named so far, with any model."""
    named = (lane_named(name, recipe) for recipe in resolved.recipes for name in resolved.models)
    return [*dict.fromkeys(named)]


def lanes_of(resolved: ResolvedJob, index: RowIndex) -> list[LaneKey]:
    """Return the lanes of the table's rows, those first that have any to render, and all that were named.

    Where other workers encode text, that of the rows alone: there is one.
    """
    check_lanes(resolved.job, index.lanes)
    of_rows = sorted(index.lanes, key=lambda lane: not index.num_pending(lane))
    if resolved.job.fleet.encoders and of_rows:
        return of_rows
    return [*dict.fromkeys([*of_rows, *lanes_named(resolved)])]


def check_lanes(job: Job, lanes: Collection[LaneKey]) -> None:
    """Raise TableError where the rows' text cannot be encoded by workers of their own."""
    if job.fleet.encoders and len(lanes) > 1:
        names = ", ".join(lane.title for lane in lanes)
        raise TableError(
            f"fleet.encoders: the rows name several recipes, which share no process: {names}",
            "leave it out, or render the rows of each in a job of its own",
        )


def largest_rows(resolved: ResolvedJob, survey: Survey, index: RowIndex) -> dict[LaneKey, Request]:
    """Return of each lane of the table's rows the row that takes most memory."""
    largest = {}
    for lane in index.lanes:
        model = resolved.models[lane.model]
        row = survey.largest(model.spec.preset, model.settings.options, model=lane.model, lane=lane)
        if row is not None:
            largest[lane] = row
    return largest


def row_works(resolved: ResolvedJob, survey: Survey, index: RowIndex) -> dict[LaneKey, float]:
    """Return what a row of each lane is expected to take, in a unit that lanes share."""
    return {
        lane: survey.mean_work(lane) * resolved.models[lane.model].weights.stored_bytes(but="text_encoder")
        for lane in index.lanes
    }


def setups_of(resolved: ResolvedJob, lanes: Iterable[LaneKey]) -> dict[LaneKey, WorkerSetup]:
    """Return what workers of these lanes need, and then workers that only encode, if there are to be any."""
    setups = {lane: setup_of(resolved, lane) for lane in lanes}
    first = next(iter(setups.values()))
    return setups | ({ENCODER_POOL: encoding_setup(first)} if resolved.job.fleet.encoders else {})


def setup_of(resolved: ResolvedJob, lane: LaneKey) -> WorkerSetup:
    """Return what a worker of one of its lanes needs."""
    model, has_encoders = resolved.models[lane.model], resolved.job.fleet.encoders > 0
    recipes = {lane.recipe: resolved.recipes[lane.recipe]} if lane.recipe else {}
    batching = resolved.batching
    for recipe in recipes.values():  # of a user's, whose process says nothing that others may believe
        max_rows = batching.max_rows if recipe.is_batched else 1
        batching = replace(batching, max_rows=max_rows, remember=False)
    return WorkerSetup(
        model=model.settings,
        batching=batching,
        media=resolved.media,
        store=resolved.store,
        recipes=recipes,
        inputs=resolved.inputs,
        model_files=model.files,
        second_models=resolved.second_models,
        audit=resolved.audit,
        keep_embeddings=resolved.job.keep_embeddings or has_encoders,
        stage="denoise" if has_encoders else "whole",
        checkpoint_every_s=resolved.job.retries.checkpoint_every_s,
        steps=resolved.steps,
        keep=_kept_steps(resolved.job),
        update=model.update,
    )


def _kept_steps(job: Job) -> KeptSteps:
    latents = job.keep.latents
    return KeptSteps(
        latents=latents if isinstance(latents, str) else tuple(latents), log_probs=job.keep.log_probs
    )
