"""Plan what rendering a job would do and take. Starts no worker and writes nothing."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from framefleet.api.clips import Request, clip_fps, each_input
from framefleet.api.commands import Callback, Watch
from framefleet.api.engines import Engine, paid_before
from framefleet.api.errors import JobError, RowError, count_text
from framefleet.api.jobs import Job, load_job, runners_of
from framefleet.api.models import FRAME_PARAMETERS
from framefleet.api.outputs import Store
from framefleet.api.sections import AtLeastOne
from framefleet.api.texts import public_url
from framefleet.cluster.fleet.start import as_joined, check_own_ray
from framefleet.jobs.job.file import check_gpu
from framefleet.jobs.job.model import place_of
from framefleet.jobs.render.claim import check_claim
from framefleet.jobs.render.python_table import given_rows
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.render.survey import Survey, mark_done, survey_rows
from framefleet.pipeline.errors import UserError, read_bytes
from framefleet.pipeline.guards.mistakes import naming_model
from framefleet.pipeline.model.library_process import LIBRARY_PROCESS
from framefleet.pipeline.model.registry import code_of
from framefleet.pipeline.model.specs.dtypes import canonical_dtype
from framefleet.pipeline.plugin import listeners
from framefleet.pipeline.render.audit.schedule import MAX_KINDS, Audit, Odds
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.pipeline.rows.sweeps.sweep import Swept
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.rows import RowPlan
from framefleet.pipeline.rows.tables.table_rows import IdentifiedRow
from framefleet.plugins.forecast.cut_prompts import CutPrompts
from framefleet.plugins.forecast.hollow import Shapes, probe_shapes
from framefleet.plugins.forecast.job_plan import (
    FRAMEFLEET,
    Argument,
    AuditPlan,
    JobPlan,
    ModelPlan,
    PlanOptions,
    PlanRun,
    Probed,
)
from framefleet.plugins.forecast.largest_row import memory_of
from framefleet.plugins.forecast.license_terms import license_line
from framefleet.plugins.forecast.model_fit import check_model_fits, check_second_model_fits

log = logging.getLogger(__name__)


def plan(
    job: Job | str | Path | Mapping[str, Any],
    *,
    table: object = None,
    hollow: bool = False,
    probe: bool = False,
    gpu_memory: str | int | None = None,
    limit: AtLeastOne | None = None,
) -> JobPlan:
    """Plan what rendering a job would do. Starts no worker, and writes nothing to its output.

    job: a job file's path, or its content. table: rows instead of the job's table, as for `render`. hollow:
    call the pipeline, without weights, for each shape. probe: render some rows of each shape here, to predict
    the time of the rest, and its cost at the job's `budget.price`. gpu_memory: memory of the GPU to plan for,
    e.g. "24GB". limit: plan only the first rows of the table, like `render --limit`. Raises FramefleetError
    as `render` would, except for rows that cannot be rendered: the plan counts them, and `invalid` says why.
    """
    card = None if gpu_memory is None else read_memory(gpu_memory)
    wanted = PlanOptions(hollow=hollow, probe=probe, gpu_memory=card, limit=limit)
    with ExitStack() as stack:
        loaded, rows = (load_job(job), None) if table is None else stack.enter_context(given_rows(job, table))
        if rows:
            loaded = loaded.with_rows_in(rows)
        return plan_job(loaded, Callback(), wanted)


def read_memory(text: str | int) -> int:
    """Return the bytes for "24GB" or "24". Raises JobError."""
    try:
        return read_bytes(f"{text}GB" if str(text).isdecimal() and len(str(text)) < 4 else text)
    except ValueError as error:
        raise JobError(f"the GPU's memory is {text!r:.40}", f"it must be {error}") from None


def plan_job(job: Job, watch: Watch, wanted: PlanOptions | None = None) -> JobPlan:
    """Plan as `plan` does, and report to `watch`."""
    wanted = wanted or PlanOptions()
    job = job.model_copy(update={"fleet": as_joined(job.fleet)})
    check_own_ray(job.fleet)
    for check in (check_gpu, *(listener.check for listener in listeners())):
        try:
            check(job)
        except UserError as error:  # may be true on this machine only
            log.warning("`render` would stop here: %s; %s", error.problem, error.fix)
    run: PlanRun = _plan_of
    for runner in reversed(runners_of(job)):
        run = partial(runner.plan, run=run)
    return run(job, watch, wanted)


def _plan_of(job: Job, watch: Watch, wanted: PlanOptions, *, table: str | None = None) -> JobPlan:
    with LIBRARY_PROCESS.use(), ExitStack() as stack:
        resolved = stack.enter_context(closing(resolve_job(job, watch, table)))
        index = stack.enter_context(closing(RowIndex()))
        check_claim(resolved)
        own = {name: model for name, model in resolved.models.items() if not model.settings.engine}
        if not own and (wanted.hollow or wanted.probe):
            fix = "leave out --hollow and --probe, or render a few rows with `render --limit`"
            raise JobError("the job's rows are rendered by an engine, whose model is not here", fix)
        for name, model in own.items():
            watch.say("comparing the weights with the networks")
            with naming_model(place_of(name)):
                check_model_fits(model)
        for name, second_model in resolved.second_models.items():
            with naming_model(f"second_models.{name}"):
                check_second_model_fits(second_model)
        is_called = wanted.hollow or wanted.probe
        priced = PricedRows(engine) if (engine := resolved.first.settings.engine) else None
        probed = {name: Shapes() for name in own} if is_called else {}
        cut = {name: CutPrompts(model.configs) for name, model in resolved.models.items()}

        def look_at(rows: Sequence[IdentifiedRow]) -> None:
            for name, cut_prompts in cut.items():
                cut_prompts.add(row for row in rows if row.model == name)
            if priced:
                for row in rows:
                    priced.add(row.request())
            for row in rows if is_called else ():
                probed[row.model].add(row.index, row.request())

        survey = survey_rows(resolved, index, watch, look_at=look_at, limit=wanted.limit)
        gone = mark_done(resolved, index, watch)
        hollow: dict[str, Probed] = {}
        for name, shapes in ((name, shapes) for name, shapes in probed.items() if shapes.first):
            model = resolved.models[name]
            watch.say(f"calling the pipeline for {count_text(len(shapes.first), 'shape')}")
            hollow[name] = probe_shapes(
                shapes, model.plan.spec, model.configs, model.weights.config_files, recipes=job.folder
            )
        is_refused = any(one.refused for one in hollow.values())
        is_sound = not is_refused and (not survey.num_invalid or job.on_invalid == "skip")
        prediction = None
        plan = _plan(resolved, survey, index, wanted, hollow, cut)
        if wanted.probe and is_sound and index.counts().pending:
            from framefleet.plugins.forecast.forecast import predict_job  # imports torch

            num_audits = plan.audits.num_audits if plan.audits else 0.0
            prediction = predict_job(resolved, index, watch, num_audits=num_audits)
        if table:  # made by a runner from the job's table
            plan = replace(plan, table=public_url(job.rows_place) if job.rows_place else "sweep")
        charge = priced.charge(index.counts().pending, resolved.store) if priced else 0.0
        return replace(plan, prediction=prediction, gone=gone, limit=wanted.limit, charge=charge)


class PricedRows:
    """What an engine charges for the rows that it is shown."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._total, self._num_rows = engine, 0.0, 0

    def add(self, request: Request) -> None:
        self._num_rows += 1
        with suppress(RowError):  # it will fail, and cost nothing
            self._total += self._engine.cost(request)

    def charge(self, num_rows: int, store: Store) -> float:
        """Return the mean cost of a row, times a number of rows; warn if the job may not pay that any more.

        store: the job's output.
        """
        charge, limit = self._total / max(1, self._num_rows) * num_rows, self._engine.limit
        if charge and limit is not None and charge > (left := limit - paid_before(store)):
            log.warning(
                "the rows to render cost about %.2f, but only %.2f is left of engine.max_cost", charge, left
            )
        return charge


def _plan(
    resolved: ResolvedJob,
    survey: Survey,
    index: RowIndex,
    wanted: PlanOptions,
    hollow: Mapping[str, Probed],
    cut: Mapping[str, CutPrompts],
) -> JobPlan:
    job, rows = resolved.job, resolved.rows
    shapes, counts = dict(survey.shapes.most_common()), index.counts()
    plans = {}
    for name, model in resolved.models.items():
        spec, settings = model.plan.spec, model.settings
        options: dict[str, Any] = {}
        if settings.engine is None:
            options = {"dtype": canonical_dtype(settings.dtype), **settings.options.numerics()}
        plans[name] = ModelPlan(
            model=settings.name,
            license=license_line(model.license, "engine.license" if settings.engine else "model.license"),
            pipeline=spec.class_name,
            code=code.title if (code := code_of(spec.class_name)) else None,
            preset=spec.preset.name if spec.preset else None,
            options=options,
            arguments=all_arguments(job, model.plan),
            unusual=tuple(survey.unusual_lines({name: spec})),
            num_cut=cut[name].num_rows,
            first_cut=cut[name].first,
            memory=None if settings.engine else memory_of(resolved, name, survey, wanted),
            hollow=hollow.get(name),
        )
    first = next(iter(plans.values()))
    lanes = {lane: num for lane in index.lanes if (num := index.num_pending(lane))}
    # Rows of undeclared recipes are not audited.
    others = (lane for lane in lanes if lane.recipe and not resolved.recipes[lane.recipe].is_batched)
    num_others = sum(lanes[lane] for lane in others)
    lookalikes = (pair for model in resolved.models.values() for pair in model.plan.lookalikes)
    return JobPlan(
        **{one.name: getattr(first, one.name) for one in fields(first)},
        models=plans if job.models else {},
        table=resolved.table.location,
        sweep=str(resolved.table) if isinstance(resolved.table, Swept) else None,
        output=resolved.store.url_of(""),
        marks=tuple(label for step in resolved.steps.values() for label in step.labels),
        num_rows=survey.num_rows,
        num_invalid=survey.num_invalid,
        invalid=tuple(survey.invalid_lines()),
        counts=counts,
        carried=rows.carried.names,
        lookalikes=tuple(dict.fromkeys(lookalikes)),
        shapes=shapes,
        fitted=survey.fitted,
        lanes={lane.title: num for lane, num in lanes.items()},
        audits=plan_audits(
            resolved.audit,
            resolved.batching,
            shapes,
            num_pending=counts.pending - num_others,
            num_others=num_others,
        ),
    )


def plan_audits(
    audit: Audit, batching: Batching, shapes: Mapping[str, int], *, num_pending: int, num_others: int = 0
) -> AuditPlan | None:
    """Predict the audits; None if there are none. shapes: number of rows by shape, most frequent first.

    num_others: further rows to render that are not audited.
    """
    if not num_pending or not audit.is_on(batching.mode):
        return None
    odds, still = audit.odds(num_pending), num_pending / sum(shapes.values())
    counts = [round(count * still) for count in shapes.values()]
    counts = [*counts[:MAX_KINDS], sum(counts[MAX_KINDS:])]
    num_audits = min(float(num_pending), sum(odds.expected(count) for count in counts))
    num_passed, is_limited = 0, False
    if audit.limit is not None:
        most = 1 + math.floor(audit.limit * num_pending)
        is_limited, num_audits = num_audits > most, min(num_audits, most)
        num_passed = _num_passed(odds, counts, audit.limit)
    offered = [round(count * (1 - num_passed / num_pending)) for count in counts]
    return AuditPlan(
        num_audits=num_audits,
        share=num_audits / num_pending,
        most_wrong=min(num_passed + odds.most_wrong(offered), num_pending) + num_others,
        limit=audit.limit,
        is_limited=is_limited,
    )


def _num_passed(odds: Odds, counts: Sequence[int], share: float) -> int:
    """Return how many rows end before audits, which are frequent at first, take less than their share.

    Nearly none of those rows is audited. Assumes that an audit takes as long as a row.
    """
    num_rows = sum(counts)

    def is_over(num_ended: int) -> bool:
        so_far = (round(count * num_ended / num_rows) for count in counts)
        return sum(odds.expected(count) for count in so_far) > share * num_ended

    low, high = 0, num_rows
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if is_over(middle) else (low, middle)
    return max(0, min(low, num_rows - 1))


def all_arguments(job: Job, plan: RowPlan) -> tuple[Argument, ...]:
    """Return all arguments of rows, those with a column first."""
    columns = {reader.target: reader.column for reader in plan.readers}
    taken = plan.spec.settable()
    sizes = [name for name in (*FRAME_PARAMETERS, "height", "width") if name in taken]
    seconds = ["seconds"] if plan.seconds is not None else []
    scheduler = ["scheduler"] if plan.scheduler.class_name else []  # an engine has none here
    names = dict.fromkeys([*columns, *plan.base, *sizes, *seconds, "seed", *scheduler, "fps"])
    values = {name: (_argument if name in plan.base else _special)(name, job, plan) for name in names}
    return tuple(
        Argument(name=name, value=value, origin=origin, column=columns.get(name))
        for name, (value, origin) in values.items()
    )


def _argument(name: str, job: Job, plan: RowPlan) -> tuple[Any, str]:
    value, spec = plan.base[name], plan.spec
    value = each_input(value, lambda named: public_url(named["uri"]))
    parameter = spec.parameters.get(name)
    given = {*job.overrides, *job.defaults}
    if name in given or (name in ("height", "width") and "size" in given):
        return value, "job"
    if name in {own.name for own in plan.recipe.parameters()}:
        return value, f"recipe {plan.recipe.name}"
    if spec.preset and name in spec.preset.arguments:
        return value, f"preset {spec.preset.name}"
    if parameter is not None and parameter.default == value:
        return value, "pipeline's signature"
    return value, "model's configs"


def _special(name: str, job: Job, plan: RowPlan) -> tuple[Any, str]:
    """Return the value and origin of a setting that is not an argument of the call."""
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
    given = {**job.defaults, **job.overrides}
    return (given[name], "job") if name in given else (None, "")
