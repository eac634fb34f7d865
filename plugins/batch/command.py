"""The command `framefleet batch`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from framefleet.api.commands import (
    ModelPlace,
    OutputPlace,
    Quiet,
    Sets,
    SummaryAsJson,
    resumable,
    stderr,
    stdout,
)
from framefleet.api.errors import count_text


@resumable
def batch_command(
    file: Annotated[
        Path, Argument(metavar="IN.JSONL", help="Batch file: lines of {custom_id, method, url, body}.")
    ],
    results: Annotated[
        Path, Option("-o", "--results", metavar="OUT.JSONL", help="File of results to write.")
    ],
    errors: Annotated[
        Path | None,
        Option(
            "--errors",
            metavar="ERRORS.JSONL",
            help="File for lines without a result. Default: OUT.errors.jsonl.",
        ),
    ] = None,
    model: ModelPlace = None,
    engine: Annotated[
        str | None,
        Option(
            "--engine",
            metavar="URL[,URL]",
            help="Servers of /v1/videos or /v1/images that render instead, e.g. http://gpu-1:8000/v1.",
        ),
    ] = None,
    output: OutputPlace = None,
    sets: Sets = None,
    as_json: SummaryAsJson = False,
    quiet: Quiet = False,
) -> None:
    """Render the requests of a batch file of OpenAI's batch API. Run it again to continue.

    Supports /v1/videos, /v1/images/generations and /v1/images/edits. Clips are stored in an output: --output,
    or else the folder OUT. Exit codes are those of `render`; 1 also means that lines were refused.
    """
    from framefleet.jobs.render.command import show_render
    from framefleet.plugins.batch.batch import open_batch
    from framefleet.plugins.batch.results import listing_refusals, write_results

    opened = open_batch(
        file, results, errors=errors, model=model, engine=engine, output=output, sets=sets or []
    )
    with listing_refusals(opened):
        code = show_render(opened.job, quiet=quiet)
    summary = write_results(opened)
    if as_json:
        stdout.say(json.dumps(asdict(summary)))
    else:
        stdout.say(f"{count_text(summary.done, 'result')}: {summary.results}")
    if summary.errors:
        num = summary.refused + summary.failed
        stderr.say(f"{count_text(num, 'line')} without a result: {summary.errors}", level="warning")
    if summary.left:
        stderr.say(f"{count_text(summary.left, 'line')} left; run it again to continue", level="warning")
    raise Exit(code or summary.exit_code)
