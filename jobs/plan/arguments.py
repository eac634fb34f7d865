"""From a job and its table's plan to every argument: its value where a row gives none, and who says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from framefleet.jobs.job.schema import Job
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS
from framefleet.pipeline.request import clip_fps, each_input
from framefleet.pipeline.rows.tables.rows import RowPlan

FRAMEFLEET = "framefleet"  # the origin of what neither job nor model says


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One argument."""

    name: str
    value: Any  # of rows that give none
    origin: str  # who says so; "" of one that only rows give
    column: str | None  # where rows give it; None: they do not


def all_arguments(job: Job, plan: RowPlan) -> tuple[Argument, ...]:
    """Return all arguments that rows have, those of columns first."""
    columns = {reader.target: reader.column for reader in plan.readers}
    taken = plan.spec.settable()
    sizes = [name for name in (*FRAME_PARAMETERS, "height", "width") if name in taken]
    names = dict.fromkeys([*columns, *plan.base, *sizes, "seed", "scheduler", "fps"])
    values = {name: (_argument if name in plan.base else _special)(name, job, plan) for name in names}
    return tuple(
        Argument(name=name, value=value, origin=origin, column=columns.get(name))
        for name, (value, origin) in values.items()
    )


def _argument(name: str, job: Job, plan: RowPlan) -> tuple[Any, str]:
    value, spec = plan.base[name], plan.spec
    value = each_input(value, lambda named: public_url(named["uri"]))
    parameter = spec.parameters.get(name)
    if name in job.overrides or name in job.defaults:
        return value, "job"
    if name in {own.name for own in plan.recipe.parameters()}:
        return value, f"recipe {plan.recipe.name}"
    if spec.preset and name in spec.preset.arguments:
        return value, f"preset {spec.preset.name}"
    if parameter is not None and parameter.default == value:
        return value, "pipeline's signature"
    return value, "model's configs"


def _special(name: str, job: Job, plan: RowPlan) -> tuple[Any, str]:
    """Return the value and origin of what is not an argument of the call."""
    if name == "seed":
        return (plan.seed, "job") if plan.seed is not None else (None, "derived from the row")
    if name == "scheduler":
        return plan.scheduler.class_name, "job" if name in job.defaults else "model"
    if name == "fps" and plan.spec.kind == "video":
        native = plan.spec.fps_of(plan.base)
        origin = "media.fps" if job.media.fps else "model" if native else FRAMEFLEET
        return clip_fps(job.media.fps, native), origin
    if name == "recipe":
        return job.recipe, "job"
    if name in (*FRAME_PARAMETERS, "height", "width"):
        return None, "the pipeline decides"
    return (job.defaults[name], "job") if name in job.defaults else (None, "")
