"""From a job and its rows to the lanes of its fleet, and what a worker of each needs.

A process that has run a user's code renders nothing else, and other processes ignore what it remembers.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from framefleet.cluster.driver.run import LanePlan
from framefleet.cluster.worker.messages import Rendering, WorkerSetup
from framefleet.jobs.render.resolve import ResolvedJob
from framefleet.jobs.render.survey import Survey
from framefleet.pipeline.rows.identity import LaneKey, lane_named
from framefleet.pipeline.rows.tables.index import RowIndex


def lanes_named(resolved: ResolvedJob) -> list[LaneKey]:
    """Return the lanes of the job's recipe and of those that rows have named so far, with every model."""
    lanes = (lane_named(name, recipe) for recipe in resolved.recipes for name in resolved.models)
    return [*dict.fromkeys(lanes)]


def lanes_of(resolved: ResolvedJob, index: RowIndex) -> list[LaneKey]:
    """Return the lanes of the table's rows, those with pending rows first, then those of `lanes_named`."""
    of_rows = sorted(index.lanes, key=lambda lane: not index.num_pending(lane))
    return [*dict.fromkeys([*of_rows, *lanes_named(resolved)])]


def plan_lanes(resolved: ResolvedJob, index: RowIndex, survey: Survey) -> dict[LaneKey, LanePlan]:
    """Return what the workers of each lane need, and what its rows cost. survey: of all rows in the index."""
    plans: dict[LaneKey, LanePlan] = {}
    for lane in lanes_of(resolved, index):
        row_bytes = resolved.models[lane.model].weights.stored_bytes(but="text_encoder")
        plans[lane] = LanePlan(
            setup=setup_of(resolved, lane),
            largest=survey.largest(model=lane.model, lane=lane),
            row_work=survey.mean_work(lane) * row_bytes or 1.0,
        )
    return plans


def rendering_of(resolved: ResolvedJob) -> dict[str, Any]:
    """Return what all workers share, by the fields of `Rendering`."""
    return {field.name: getattr(resolved, field.name) for field in fields(Rendering)}


def setup_of(resolved: ResolvedJob, lane: LaneKey) -> WorkerSetup:
    """Return what a worker of a lane needs."""
    model = resolved.models[lane.model]
    recipes = {lane.recipe: resolved.recipes[lane.recipe]} if lane.recipe else {}
    batching = resolved.batching
    for recipe in recipes.values():  # a user's: other processes must not trust what this one remembers
        max_rows = batching.max_rows if recipe.is_batched else 1
        batching = replace(batching, max_rows=max_rows, remember=False)
    columns = tuple(column for column in resolved.columns if not column.is_late)
    return WorkerSetup(
        **rendering_of(resolved) | {"recipes": recipes, "batching": batching, "columns": columns},
        model=model.settings,
        model_files=model.files,
        update=model.update,
    )
