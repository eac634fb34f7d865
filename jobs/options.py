"""Options that several commands share."""

import inspect
import os
import re
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Context, Option

from framefleet.jobs.show.console import reporting
from framefleet.pipeline.errors import JobError, quoted
from framefleet.pipeline.guards.redaction import public_text, public_url
from framefleet.pipeline.outputs.layout import dated

_SEED = r"\s*[\d_]+\s*(?:-\s*\d+\s*(?::\s*\d+\s*)?)?"  # 5, 0-63 or 0-64:8
_SEEDS = re.compile(rf"{_SEED}(?:,{_SEED})*,?\s*|\s*[@[{{].*", re.DOTALL)  # or what `_set_of` reads


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take groups of options that other commands take too.

    A group is a function whose parameters are options. The command has a parameter with this function as its
    default, and gets the function with the typed values bound. It calls it, and reports what it raises.
    """
    own = inspect.signature(command, eval_str=True)
    groups = {
        name: parameter.default
        for name, parameter in own.parameters.items()
        if inspect.isfunction(parameter.default)
    }
    options = {name: inspect.signature(group, eval_str=True).parameters for name, group in groups.items()}
    parameters = [
        option
        for name, parameter in own.parameters.items()
        for option in options.get(name, {name: parameter}).values()
    ]

    @wraps(command)
    def typed(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = partial(group, **{option: values.pop(option) for option in options[name]})
        command(**values)

    typed.__dict__["__signature__"] = own.replace(parameters=parameters)
    return typed


def resumable(command: Callable[..., None]) -> Callable[..., None]:
    """Mark a command that can be run again to continue: if it is interrupted, its last line says so."""
    command.__dict__["is_resumable"] = True
    return command


def output_place(context: Context, place: str) -> str:
    if os.path.isfile(place) and not context.resilient_parsing:  # else a shell completes what is typed
        from framefleet.jobs.job.file import check_output_place

        with reporting(verbose=False):
            check_output_place(place)
    return dated(place)


def _job_file(context: Context, place: str) -> str:
    if not context.resilient_parsing:
        from framefleet.jobs.job.file import check_job_place

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


def option_sets(
    read_metadata: ReadMetadata = False,
    prompts: Prompts = None,
    seeds: Seeds = None,
    sweeps: Sweeps = None,
    workers: Workers = None,
    steps: NumSteps = None,
    sets: Sets = None,
) -> list[str]:
    """Return these options as texts for `--set`, e.g. "sweep.seed=[0-63]", then `sets`. Raises JobError."""
    from framefleet.jobs.job.yaml_text import yaml_of

    options = {"prompt": "--prompt"} if prompts else {}
    options |= {"seed": "--seeds"} if seeds else {}
    for name in (sweep.partition("=")[0].strip() for sweep in sweeps or ()):
        option = quoted("--sweep", f"{name}=...")
        if name in options:
            problem = f"{options[name]} and {option} both give values of {name}"
            raise JobError(problem, "give all of them with one of the two")
        options[name] = option
    swept = [f"sweep.prompt={yaml_of([*prompts])}"] if prompts else []
    if prompts and len(prompts) == 1 and prompts[0].startswith("@"):
        swept = [_set_of(f"prompt={prompts[0]}")]
    if seeds is not None:
        if not _SEEDS.fullmatch(seeds):
            problem = f"--seeds {public_text(seeds)}: not whole numbers or ranges of them"
            raise JobError(problem, "write them as --seeds 0-63 or --seeds 1,5,9")
        swept += [_set_of(f"seed={seeds}")]
    numbers: dict[str, object] = {"fleet.workers": workers, "overrides.num_inference_steps": steps}
    numbers |= {"read_metadata": True} if read_metadata else {}
    short = (f"{key}={value}" for key, value in numbers.items() if value is not None)
    return [*swept, *map(_set_of, sweeps or []), *short, *(sets or [])]


def _set_of(sweep: str) -> str:
    """Return the text for `--set` of a `--sweep`: name=1,3,5, name=@prompts.txt, or name=YAML."""
    name, _, values = (part.strip() for part in sweep.partition("="))
    if not (name and values):
        problem = f"--sweep {public_text(sweep)}: not name=values"
        raise JobError(problem, "write it as --sweep guidance_scale=1,3,5")
    from framefleet.jobs.job.yaml_text import parse_yaml, yaml_of

    if values[0] == "@":
        return f"sweep.{name}.file={yaml_of(values[1:])}"
    is_one = values[0] in "[{" or name in ("wildcards", "sample.num", "sample.method", "sample.seed")
    parsed, _ = parse_yaml(values if is_one else f"[{values}]", source=f"--sweep {name}")
    return f"sweep.{name}={yaml_of(parsed)}"
