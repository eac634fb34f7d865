"""The command `framefleet plan`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel
from rich import box
from rich.table import Table
from typer import Option

from framefleet.api.commands import quiet_libraries, stderr, stdout
from framefleet.api.errors import JobError, TableError, bytes_text, count_text
from framefleet.cluster.driver.stop import Spent
from framefleet.jobs import options
from framefleet.jobs.show.watch import VAGUE, bound_text, gone_line, share_text
from framefleet.pipeline.errors import SHAPE_ORDER

if TYPE_CHECKING:
    from framefleet.api.jobs import Job
    from framefleet.plugins.forecast.job_plan import AuditPlan, JobPlan, ModelPlan, PlanOptions, Probed
    from framefleet.plugins.forecast.prediction import Prediction

MAX_SHAPES_SHOWN = 30  # a screenful
_MAX_VALUE = 40  # characters
_MAX_NAMES = 20  # of carried columns
_MANY = 100  # rows; from here on, percentages are useful

_Hollow = Annotated[
    bool,
    Option(
        "--hollow",
        help="Also call the pipeline once per combination of size, steps and arguments, with networks "
        "without weights, to find errors that the checks miss.",
    ),
]
_Probe = Annotated[
    bool,
    Option("--probe", help="Like --hollow, then render some rows here to predict time and price."),
]
_GpuMemory = Annotated[
    str | None,
    Option(
        "--gpu-memory",
        metavar="SIZE",
        help="Memory of the GPU to render on, e.g. 24GB. Default: this machine's.",
    ),
]


@options.with_groups
def plan_command(
    job: options.JobFile = None,
    tables: options.TablePlaces = None,
    typed_sets: Callable[[], list[str]] = options.option_sets,
    model: options.ModelPlace = None,
    output: options.OutputPlace = None,
    limit: options.Limit = None,
    hollow: _Hollow = False,
    probe: _Probe = False,
    gpu_memory: _GpuMemory = None,
    as_json: options.SummaryAsJson = False,
) -> None:
    """Check everything, and print what `render` or `train` would do. Leaves the output unchanged.

    A job file with `train:` is planned as a training.
    """
    from framefleet.api.jobs import load_job
    from framefleet.jobs.job.file import job_kind_of

    sets = typed_sets()
    if kind := job_kind_of(job, sets):
        if limit is not None:
            raise JobError("--limit: the job renders no rows", "leave it out")
        of_kind = load_job(
            job, sets, table=options.one_table(tables), model=model, output=output, kind=kind.schema
        )
        kind.show_plan(of_kind, probe=probe, as_json=as_json)
        return
    loaded = load_job(job, sets, table=options.one_table(tables), model=model, output=output)
    from framefleet.plugins.forecast.job_plan import PlanOptions
    from framefleet.plugins.forecast.plan import read_memory  # takes seconds; report mistakes before

    wanted = PlanOptions(
        hollow=hollow,
        probe=probe,
        gpu_memory=None if gpu_memory is None else read_memory(gpu_memory),
        limit=limit,
    )
    show_plan(loaded, wanted, as_json=as_json)


def show_plan(job: Job, wanted: PlanOptions, *, as_json: bool) -> None:
    """Print the plan. Then raise TableError if invalid rows would stop `render`, or rows would fail."""
    from framefleet.api.jobs import watch_on
    from framefleet.jobs.job.schema import sections_not_stored
    from framefleet.jobs.render.survey import check_valid_rows
    from framefleet.plugins.forecast.plan import plan_job

    if wanted.probe:
        quiet_libraries()
    with watch_on(stderr) as watch:
        plan = plan_job(job, watch, wanted)
    if as_json:
        stdout.say(json.dumps(asdict(plan), ensure_ascii=False))
    else:
        shown: JobPlan | None = None
        for part in (*plan.before, *plan.parts(wanted)):
            if isinstance(part, str):
                stdout.say(part)
                continue
            _show(part, shown)
            shown = part
            if part is not plan:  # the last one comes after errors about its rows
                _print(part.prediction)
        for section in ("budget", *sorted(sections_not_stored(), reverse=True)):
            settings: BaseModel = getattr(job, section)
            fields, values = type(settings).model_fields, settings.model_dump(exclude_defaults=True)
            if "bytes" in values:
                values["bytes"] = bytes_text(values["bytes"])
            values |= {name: f"{one:g}" for name, one in values.items() if isinstance(one, float)}
            # Print only the names of values that may be secret.
            texts = [f"{name} {_text(one)}" if fields[name].repr else name for name, one in values.items()]
            if texts:
                stdout.say(f"{section}: {', '.join(texts)}")
        for line in _spent_lines(job):
            stdout.say(line)
    check_valid_rows(
        plan.invalid,
        num_bad=plan.num_invalid,
        num_rows=plan.num_rows,
        table=plan.table,
        on_invalid=job.on_invalid,
        verb="rendered",
    )
    if not as_json:
        for line in plan.invalid:
            stdout.say(f"left out: {line}")
    for one in (plan.models or {"": plan}).values():
        if one.hollow:
            show_probed(one.hollow, plan.table)
    if not as_json:
        _print(plan.prediction)


def _spent_lines(job: Job) -> Iterator[str]:
    """Yield how much of the budget earlier runs have used, and whether `render` would stop at once."""
    from framefleet.api.jobs import store_of_job
    from framefleet.api.outputs import Output
    from framefleet.cluster.driver.earlier_runs import spent_before

    store, gpus = store_of_job(job), job.fleet.paid_gpus
    if job.budget.per == "run" or not job.budget.limits():
        return
    stores = [store, *(inner.store for inner in Output(store).inner.values())]
    spent = sum(map(spent_before, stores), Spent())
    if limit := job.budget.reached(spent, gpus):
        overrun = job.budget.overrun(limit, spent, gpus)
        yield f"`render` would stop at once: {overrun.message}; to continue: {overrun.to_continue}"
    elif spent != Spent():
        yield f"used of the budget so far: {spent.text()}"


def _print(prediction: Prediction | None) -> None:
    for line in prediction.shown() if prediction else ():
        if isinstance(line, str):
            stdout.say(line)
        else:
            stdout.print(line)


def _show(plan: JobPlan, shown: JobPlan | None = None) -> None:
    """Print a plan. shown: an earlier one, whose arguments are not repeated."""
    models: Mapping[str, ModelPlan] = plan.models or {"": plan}
    first = "" if plan.limit is None else f", the first {count_text(plan.num_rows, 'row')}"
    stdout.say(f"sweep:  {plan.sweep}{first}" if plan.sweep else f"table:  {plan.table}{first}")
    stdout.say(f"output: {plan.output}")
    if plan.marks:
        stdout.say(f"marks: {', '.join(plan.marks)}")
    for name, one in models.items():
        preset = f", preset {one.preset}" if one.preset else ""
        chosen = "".join(f", {option}: {_text(value)}" for option, value in one.options.items())
        title = f"model {name}: " if name else "model:  "
        code = f" from the package {one.code}" if one.code else ""
        stdout.say(f"{title}{one.model} ({one.pipeline}{code}{preset}{chosen})")
        stdout.say(f"license: {one.license}")
    counts = plan.counts
    numbers = {
        "rows": plan.num_rows,
        "invalid": plan.num_invalid,
        "duplicates": counts.duplicates,
        "distinct": counts.distinct,
        "done": counts.done,
        "to render": plan.to_render,
    }
    stdout.print(counted("", numbers))
    if plan.gone:
        stdout.say(gone_line(plan.gone))
    for name, one in models.items():
        origin = "column or sweep" if plan.sweep else "column"
        table = Table(f"argument of {name}" if name else "argument", origin, "default", box=box.SIMPLE_HEAD)
        before = (shown.models or {"": shown})[name].arguments if shown else ()
        for argument in one.arguments:
            if argument in before:
                continue
            value = "" if argument.value is None else _text(argument.value)
            origin = f"({argument.origin})" if value and argument.origin else argument.origin
            table.add_row(argument.name, argument.column or "", f"{value} {origin}".strip())
        if before:
            table.add_row("others", "", "as above")
        stdout.print(table)
    if carried := [*plan.carried.values()]:
        more = f" and {len(carried) - _MAX_NAMES:,} more" if len(carried) > _MAX_NAMES else ""
        stdout.say(f"carried into the records: {', '.join(carried[:_MAX_NAMES])}{more}")
    shapes = {
        f"{shape} of prompt" if shape.endswith(" tokens") else shape: num
        for shape, num in list(plan.shapes.items())[:MAX_SHAPES_SHOWN]
    }
    if hidden := len(plan.shapes) - len(shapes):
        shapes[count_text(hidden, "other shape")] = sum(plan.shapes.values()) - sum(shapes.values())
    stdout.print(counted(f"shape ({SHAPE_ORDER})", shapes))
    for fitted in plan.fitted.values():
        stdout.say(f"fit: {fitted}")
    if len(plan.lanes) > 1:
        parts = (f"{name} ({count_text(num, 'row')})" for name, num in plan.lanes.items())
        stdout.say(
            f"lanes: {len(plan.lanes)}, which do not share processes, so models are loaded at least "
            f"{len(plan.lanes)} times: {'; '.join(parts)}"
        )
    if plan.charge:
        stdout.say(f"cost: about {plan.charge:,.2f} for the rows to render, by the price of the engine")
    if plan.audits:
        stdout.say(audits_line(plan.audits, plan.counts.pending))
    for name, one in models.items():
        for line in _model_lines(one):
            stdout.say(f"{name}: {line}" if name else line)


def _model_lines(plan: ModelPlan) -> Iterator[str]:
    from framefleet.plugins.forecast.job_plan import FRAMEFLEET

    for line in plan.unusual:
        yield f"unusual: {line}"
    if row := plan.first_cut:
        yield (
            f"cut prompts: {count_text(plan.num_cut, 'row')} with more tokens than the model reads, so the "
            f"end is ignored; row {row.row_index} has {row.num_tokens:,}, the limit is {row.limit:,}"
        )
    for argument in plan.arguments:
        if argument.name == "fps" and argument.origin == FRAMEFLEET:
            yield (
                "fps: the model does not state its frame rate, so clips without sound play at "
                f"{argument.value:g}; set `media.fps`"
            )
    if plan.memory:
        yield plan.memory.line


def counted(key: str, numbers: Mapping[str, int | str]) -> Table:
    """Return a table with a number of rows for each name."""
    table = Table(key, box=box.SIMPLE_HEAD)
    table.add_column("rows", justify="right")
    for name, number in numbers.items():
        table.add_row(name, number if isinstance(number, str) else f"{number:,}")
    return table


def audits_line(audits: AuditPlan, num_pending: int) -> str:
    """Return how many rows are rendered a second time to compare, and what that proves."""
    share = f" ({share_text(audits.share)})" if num_pending >= _MANY else ""
    num = round(audits.num_audits)
    about, limit = "up to" if audits.is_limited else "about", "audit.share does not limit them"
    if audits.limit is not None:
        limit = f"audit.share: one row, and at most {share_text(audits.limit)} of the model's time"
    how_many = (
        f"{about} {num:,} of {count_text(num_pending, 'row')}{share} are" if num > 1 else "perhaps one row is"
    )
    all_are = "all are" if num > 1 else "it is"
    line = f"audits: {how_many} rendered again, alone, as a check ({limit})"
    if not 0 < audits.most_wrong <= VAGUE * num_pending:  # all are checked, or too few to prove anything
        return line
    return f"{line}; if {all_are} equal, {bound_text(audits.most_wrong, num_pending)}, with 95 % confidence"


def show_probed(probed: Probed, table: str) -> None:
    """Print what the pipeline accepts. Raise TableError for shapes that it refuses."""
    for line in probed.unknown:
        stderr.say(f"not called: {line}")
    if probed.refused:
        lines = "\n".join(f"{problem}; {fix}" for problem, fix in probed.refused)
        problem = f"table {table}: rows of {count_text(len(probed.refused), 'shape')} would fail\n{lines}"
        raise TableError(problem, "correct them")
    stderr.say(f"the pipeline accepts every {'other ' * bool(probed.unknown)}shape")


def _text(value: Any) -> str:
    from framefleet.api.texts import canonical_json

    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 3]}..."
