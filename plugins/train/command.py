"""The command line of `framefleet train`, and of `framefleet plan` for a training."""

from __future__ import annotations

import json
from dataclasses import asdict

from framefleet.api import JobKind
from framefleet.api.commands import duration, quiet_libraries, stderr, stdout
from framefleet.api.errors import bytes_text, count_text, rounded
from framefleet.jobs import options
from framefleet.pipeline.errors import SHAPE_ORDER
from framefleet.plugins.forecast.command import counted
from framefleet.plugins.train.job import TrainJob


@options.resumable
def train_command(
    job: options.JobFile = None,
    tables: options.TablePlaces = None,
    model: options.ModelPlace = None,
    output: options.OutputPlace = None,
    log_format: options.LogFormat = "text",
    sets: options.Sets = None,
    as_json: options.SummaryAsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Train or fine-tune a model on a table of videos. Run it again to continue after an interruption.

    Exit codes: 0 trained; 2 bad job, table or model; 3 fleet or store lost; 70 a bug in framefleet;
    129, 130 or 143 interrupted.
    """
    from framefleet.api.jobs import load_job, watch_on

    loaded = load_job(
        job,
        sets or [],
        table=options.one_table(tables),
        model=model,
        output=output,
        kind=TrainJob,
        is_run=True,
    )
    quiet_libraries()
    from framefleet.plugins.train.train import train_job

    with watch_on(stderr, quiet=quiet) as watch:
        summary = train_job(loaded, watch)
    if not quiet and (not as_json or stderr.about is not None):
        text = f"nothing to do: trained for all of {count_text(summary.steps, 'step')}"
        if summary.steps_done:
            text = f"{count_text(summary.steps_done, 'step')} trained in {duration(summary.elapsed_s)}"
        stderr.say(text)
    stdout.say(json.dumps(asdict(summary)) if as_json else summary.result)


def show_train_plan(job: TrainJob, *, probe: bool, as_json: bool) -> None:
    from framefleet.api.jobs import watch_on
    from framefleet.plugins.train.plan import plan_train_job

    quiet_libraries()
    with watch_on(stderr) as watch:
        plan = plan_train_job(job, watch, probe=probe)
    if as_json:
        stdout.say(json.dumps(asdict(plan) | {"elapsed_s": plan.elapsed_s}, ensure_ascii=False))
        return
    stdout.say(f"table:  {plan.table}")
    stdout.say(f"output: {plan.output}")
    stdout.say(f"model:  {plan.model} ({plan.pipeline}), of which {plan.component} is trained")
    stdout.print(counted(f"bucket ({SHAPE_ORDER})", plan.buckets))
    for bucket, count in plan.unused.items():
        stdout.say(f"never used: {count_text(count, 'row')} of {bucket}, too few for a batch")
    rows, workers = count_text(plan.rows_per_step, "row"), count_text(plan.num_workers or 1, "worker")
    stdout.say(
        f"{count_text(plan.steps, 'step')} of {rows} with {workers}: "
        f"{rounded(plan.epochs)} epochs of {count_text(plan.num_rows, 'row')}"
    )
    size = bytes_text(plan.weights_gb * 1e9)
    stdout.say(f"memory: about {size} for weights, gradients and moments; activations are not counted")
    if plan.seconds_per_step is not None and plan.elapsed_s is not None:
        stdout.say(
            f"predicted: {rounded(plan.seconds_per_step)} s a step here, {duration(plan.elapsed_s)} in all"
        )


TRAINING_KIND = JobKind(schema=TrainJob, show_plan=show_train_plan)
