"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

JobFile = Annotated[
    Path | None, typer.Argument(metavar="JOB.YAML", help="The job file; without one, give the options.")
]
JobOrOutput = Annotated[
    str,
    typer.Argument(
        metavar="OUTPUT|JOB.YAML", help="An output, whose job.json says the rest; or the job file."
    ),
]
OutputToRead = Annotated[
    str,
    typer.Argument(metavar="OUTPUT", help="The output to look at: a folder, or a URL as s3://bucket/run-7."),
]
TablePlace = Annotated[
    str | None, typer.Option("--table", help="Parquet, CSV or JSONL: path, folder, glob or URL.")
]
ModelPlace = Annotated[
    str | None, typer.Option("--model", help="A diffusers pipeline: folder, org/name of the hub, or URL.")
]
OutputPlace = Annotated[str | None, typer.Option("--output", help="A folder, or a URL as s3://bucket/run-7.")]
Prompts = Annotated[
    list[str] | None,
    typer.Option("--prompt", help="A prompt, in place of a table; repeatable. {name} is a word of --sweep."),
]
Seeds = Annotated[
    str | None, typer.Option("--seeds", metavar="0-63", help="The seeds of each prompt or row; or as 1,5,9.")
]
Sweeps = Annotated[
    list[str] | None,
    typer.Option(
        "--sweep",
        metavar="NAME=VALUES",
        help="What an argument goes through, as guidance_scale=1,3,5 or prompt=@prompts.txt or "
        "'eta={from: 0, to: 1, step: 0.1}'; repeatable: every combination is rendered.",
    ),
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Workers to start.")]
NumSteps = Annotated[
    int | None,
    typer.Option("--steps", min=1, help="Number of denoising steps of every row, whatever the table says."),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Render only the first N rows of the table.", metavar="N")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no notes, only errors.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A key of the job file, as fleet.workers=2; repeatable."),
]
StorageSets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="As storage_options.endpoint_url=...; repeatable."),
]
SummaryAsJson = Annotated[bool, typer.Option("--json", help="For machines: one JSON object at the end.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines: a line of JSON for each finding.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show logs, and tracebacks of errors.")]
