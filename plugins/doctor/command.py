"""The command `framefleet doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Annotated

from rich.text import Text
from typer import Argument, Option

from framefleet.api.commands import AsJson, Sets, stdout
from framefleet.api.errors import escaped

_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def doctor_command(
    path: Annotated[
        Path | None,
        Argument(metavar="JOB.YAML", help="Job file whose store, models and cluster to check, too."),
    ] = None,
    address: Annotated[
        str | None,
        Option("--address", help="Ray cluster whose machines to check, e.g. auto or 10.0.0.5:6379."),
    ] = None,
    store: Annotated[
        str | None,
        Option("--store", metavar="URL", help="Output or bucket to test. Default: the job's output."),
    ] = None,
    only: Annotated[
        list[str] | None,
        Option("--only", metavar="CHECK", help="Run only this check, e.g. store; repeatable."),
    ] = None,
    as_json: AsJson = False,
    sets: Sets = None,
) -> None:
    """Check this machine, or every machine of a cluster, and say what to fix.

    Also works while a job runs. Exit codes: 0 no errors (maybe warnings); 1 errors; 2 wrong input; 3 the
    cluster cannot be joined.
    """
    from framefleet.api.jobs import Job, load_job, storage_options
    from framefleet.jobs.job.file import job_kind_of
    from framefleet.plugins.doctor.doctor import doctor

    kind = job_kind_of(path, sets or []) if path else None
    job = load_job(path, sets or [], kind=kind.schema if kind else Job) if path else None
    options = None if path else storage_options(sets)
    diagnosis = doctor(job, address=address, store=store, storage_options=options, only=only or ())
    for machine, results in groupby(diagnosis.results, key=lambda result: result.machine):
        if as_json:
            for one in results:
                stdout.say(json.dumps(asdict(one)))
            continue
        stdout.say(machine)
        for one in results:
            line = Text(f"  {one.state:<8}", style=_STYLES[one.state])
            stdout.say(line.append(escaped(f"{one.check:<14}{one.text}"), style="default"))
            if one.fix:
                stdout.say(Text(f"  {'':<8}{'':<14}fix: {escaped(one.fix)}", style="cyan"))
    if not diagnosis.is_well:
        raise SystemExit(1)
