"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Context, Option

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.outputs.layout import dated


def output_place(context: Context, place: str) -> str:
    if os.path.isfile(place) and not context.resilient_parsing:  # else a shell completes what is typed
        from framefleet.jobs.job.file import check_output_place
        from framefleet.jobs.show.console import reporting

        with reporting(verbose=False):
            check_output_place(place)
    return dated(place)


def _job_file(context: Context, place: str) -> str:
    if not context.resilient_parsing:
        from framefleet.jobs.job.file import check_job_place
        from framefleet.jobs.show.console import reporting

        with reporting(verbose=False):
            check_job_place(place, of=context.info_name or "")
    return place


JobFile = Annotated[
    Path | None,
    Argument(
        metavar="JOB.YAML",
        help="Job file. Options override its keys. Without a job file, give all keys as options.",
    ),
]
GivenJob = Annotated[
    str, Argument(metavar="JOB.YAML", help="Job file. --set overrides its keys.", callback=_job_file)
]
OutputToRead = Annotated[
    str,
    Argument(
        metavar="OUTPUT", help="Output: a folder or a URL, e.g. s3://bucket/run-7.", callback=output_place
    ),
]
TablePlaces = Annotated[
    list[str] | None,
    Option(
        "--table",
        "--images",
        help="Table of rows: a Parquet, CSV or JSONL file, folder, glob or URL; or a folder of images or "
        "videos, one row for each.",
    ),
]


ReadMetadata = Annotated[
    bool,
    Option(
        "--read-metadata",
        help="Render the prompts, seeds and settings that are stored in the files of --images, instead of "
        "starting from the pictures. Reads files of framefleet, A1111, ComfyUI and InvokeAI.",
    ),
]


def one_table(places: list[str] | None) -> str | None:
    """Return the table of `TablePlaces`. Raises JobError for several."""
    different = [*dict.fromkeys(places or ())]
    if len(different) > 1:
        tables = " and ".join(map(public_url, different))
        problem = f"several tables are given with --table or --images: {tables}"
        raise JobError(problem, "give one of them; `framefleet add` adds rows to a job")
    return different[0] if different else None


ModelPlace = Annotated[
    str | None, Option("--model", help="Diffusers pipeline: a folder, a hub id (org/name) or a URL.")
]
OutputPlace = Annotated[
    str | None, Option("--output", help="Folder or URL to write to, e.g. s3://bucket/run-7.")
]
Prompts = Annotated[
    list[str] | None,
    Option(
        "--prompt",
        metavar="TEXT",
        help="Prompt to render; repeatable. {name} stands for a value of --sweep. Replaces the job's "
        "sweep.prompt.",
    ),
]
Seeds = Annotated[
    str | None,
    Option(
        "--seeds",
        metavar="SEEDS",
        help="Seeds of each prompt or row, e.g. 0-63 or 1,5,9. Replaces the job's sweep.seed.",
    ),
]
Sweeps = Annotated[
    list[str] | None,
    Option(
        "--sweep",
        metavar="NAME=VALUES",
        help="Values to sweep, e.g. guidance_scale=1,3,5 or prompt=@prompts.txt or "
        "'eta={from: 0, to: 1, step: 0.1}'; repeatable. Every combination is rendered. Replaces the same key "
        "of the job's sweep.",
    ),
]
Where = Annotated[
    str | None,
    Option("--where", metavar="SQL", help='Only rows for which this is true, e.g. "sharpness > 0.4".'),
]
Workers = Annotated[int | None, Option("--workers", min=1, metavar="N", help="Number of workers to start.")]
NumSteps = Annotated[
    int | None,
    Option("--steps", min=1, metavar="N", help="Denoising steps of every row. Overrides job and table."),
]
Limit = Annotated[
    int | None,
    Option("--limit", min=1, help="Take only the first N rows of the table this time.", metavar="N"),
]
LogFormat = Annotated[
    Literal["text", "json"],
    Option(
        "--log-format", metavar="text|json", help="Format of lines on stderr; json is for log collectors."
    ),
]
Every = Annotated[float, Option("--every", min=1.0, metavar="SECONDS", help="Seconds between two refreshes.")]
MetricsPort = Annotated[
    str | None,
    Option(
        "--metrics-port",
        metavar="[HOST:]PORT",
        help="Serve the job's metrics to Prometheus. Default host: 127.0.0.1, only this machine.",
    ),
]
Port = Annotated[
    int, Option("--port", min=0, max=65535, help="Port of --serve. Default: a free one.", show_default=False)
]
Quiet = Annotated[bool, Option("--quiet", "-q", help="Show only warnings and errors.")]
Sets = Annotated[
    list[str] | None,
    Option("--set", metavar="KEY=VALUE", help="Set a key of the job file, e.g. fleet.workers=2; repeatable."),
]
StorageSets = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a storage option (not a job key), e.g. storage_options.endpoint_url=...; repeatable.",
    ),
]
SummaryAsJson = Annotated[bool, Option("--json", help="Print one JSON object at the end, for scripts.")]
AsJson = Annotated[bool, Option("--json", help="Print JSON instead of text, one object per line.")]
Verbose = Annotated[bool, Option("--verbose", "-v", help="Show logs, and tracebacks of errors.")]
AllowPickle = Annotated[
    bool, Option("--allow-pickle", help="Allow pickles of tensors where there are no safetensors.")
]
ErrorTypes = Annotated[
    list[str] | None,
    Option(
        "--error", metavar="TYPE", help="Include only rows with this error, e.g. OutOfMemory; repeatable."
    ),
]
