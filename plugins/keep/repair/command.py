"""The command `framefleet repair`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Exit, Option

from framefleet.api.commands import AsJson, Sets, resumable, stderr, stdout
from framefleet.api.errors import command, count_text
from framefleet.jobs import options
from framefleet.jobs.job.paths import JOB_FILES
from framefleet.pipeline.outputs.layout import DAMAGED


def _job_or_output(context: Context, place: str) -> str:
    is_job = Path(place).suffix in JOB_FILES and not os.path.isdir(place)
    return place if is_job else options.output_place(context, place)


_JobOrOutput = Annotated[
    str,
    Argument(
        metavar="OUTPUT|JOB.YAML", help="Output, or the job file that renders to it.", callback=_job_or_output
    ),
]
_DryRun = Annotated[bool, Option("--dry-run", help="Print what would be done. Change nothing.")]


@resumable
def repair_command(
    job: _JobOrOutput,
    dry_run: _DryRun = False,
    as_json: AsJson = False,
    sets: Sets = None,
) -> None:
    """Read every file of an output, and remove what is damaged. Given the job file, render what is missing.

    Exit codes are those of `render`. 1 without a job file: records were removed, so render the job again.
    1 with --dry-run: there is something to repair.
    """
    from framefleet.api.jobs import watch_on
    from framefleet.jobs.render.command import show_ending
    from framefleet.plugins.keep.repair.repair import repair_job
    from framefleet.plugins.keep.verify.command import DamageList

    damages = DamageList(as_json=as_json)
    with watch_on(stderr) as watch:
        repaired = repair_job(job, watch, dry_run=dry_run, sets=sets or [], found=damages.add)
    damages.show()
    num_lost = num_aside = 0
    for name, done in {"": repaired, **repaired.inner}.items():
        repairs, would = done.repairs, "would be " if dry_run else ""
        num_lost += repairs.num_rows + repairs.num_with_records
        num_aside += repairs.num_set_aside
        files = count_text(repairs.num_swept, "file")
        parts = count_text(repairs.num_set_aside, "damaged part")
        for is_done, line in (
            (done.is_job_back, f"job.json {would or 'was '}put back"),
            (repairs.num_rows, f"{count_text(repairs.num_rows, 'record')} {would}taken out"),
            (repairs.num_set_aside, f"{parts} {would}moved to {DAMAGED}/"),
            (repairs.num_swept, f"{files} that no record names {would}deleted"),
        ):
            if is_done:
                stderr.say(f"{name}: {line}" if name else line)
    if not damages.num_found and repaired.summary is None and not as_json:
        stdout.say("nothing to repair")
    elif num_lost and repaired.summary is None:
        then = "would then have" if dry_run else "now have"
        stderr.say(f"rows {then} no record; to render them: {command('render', 'JOB.YAML')}")
    elif num_aside and repaired.summary is None:
        then = "would then be" if dry_run else "now are"
        stderr.say(f"scores or errors {then} gone; to make them again: {command('render', 'JOB.YAML')}")
    code = 1 if (damages.num_damages if dry_run else num_aside or num_lost) else 0
    if repaired.summary is not None:
        code = show_ending(repaired.summary)
    raise Exit(code)
