"""The command line. Commands import what they need when they run, so that `--help` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from framefleet.jobs.model.cli import model_app
from framefleet.jobs.shapes.cli import shapes_app
from framefleet.jobs.show.terminal import guard_streams
from framefleet.pipeline.guards.public import keep_secrets

app = typer.Typer(
    help="Render a table of prompts into clips and records that can be rendered again, bit for bit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(model_app, name="model")
app.add_typer(shapes_app, name="shapes")

JobFile = Annotated[
    Path | None, typer.Argument(metavar="JOB.YAML", help="The job file; without one, give the options.")
]
TableOption = Annotated[
    str | None, typer.Option("--table", help="Parquet, CSV or JSONL: path, folder, glob or URL.")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="A diffusers pipeline: folder, org/name of the hub, or URL.")
]
OutputOption = Annotated[
    str | None, typer.Option("--output", help="A folder, or a URL as s3://bucket/run-7.")
]
_Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A key of the job file, as fleet.workers=2; repeatable."),
]
_Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show logs, and tracebacks of errors.")]


def main() -> None:
    """Run one command and end with its exit code; what is printed is fit for a terminal."""
    guard_streams()
    for argument in sys.argv[1:]:  # also where it is misplaced, and quoted in a mistake
        name, _, value = argument.removeprefix("--set=").partition("=")
        keep_secrets({name: value})
    from framefleet.jobs.show import console

    with console.reporting(verbose=False):
        try:
            app(prog_name="framefleet")
        finally:
            sys.stdout.flush()  # here, where a full disk or a closed pipe is told


def _show_version(wanted: bool) -> None:
    if wanted:
        from framefleet import __version__

        print(f"framefleet {__version__}")
        raise typer.Exit


@app.callback()
def _framefleet(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of no command."""


@app.command()
def render(
    job: JobFile = None,
    table: TableOption = None,
    model: ModelOption = None,
    output: OutputOption = None,
    sets: _Sets = None,
    verbose: _Verbose = False,
) -> None:
    """Render every row of a table that has no record yet. Run it again to go on after an interruption.

    Exit codes: 0 every row has a record; 1 some rows failed; 2 bad job, table or model;
    3 fleet or store lost; 70 a defect of framefleet; 130 or 143 interrupted.
    """
    from framefleet.jobs.show import console

    with console.reporting(verbose=verbose, resumable=True):
        from framefleet.jobs.commands import render_command
        from framefleet.jobs.job.file import load_job

        failed = render_command(load_job(job, sets or [], table=table, model=model, output=output))
    raise typer.Exit(1 if failed else 0)


@app.command()
def train(
    job: JobFile = None,
    table: TableOption = None,
    model: ModelOption = None,
    output: OutputOption = None,
    sets: _Sets = None,
    verbose: _Verbose = False,
) -> None:
    """Train or fine-tune a model on a table of videos. Run it again to go on after an interruption.

    Exit codes: 0 trained; 2 bad job, table or model; 3 fleet or store lost; 70 a defect of framefleet;
    130 or 143 interrupted.
    """
    from framefleet.jobs.show import console

    with console.reporting(verbose=verbose, resumable=True):
        from framefleet.jobs.job.file import load_job_as
        from framefleet.jobs.train.command import train_command
        from framefleet.jobs.train.schema import TrainJob

        train_command(load_job_as(TrainJob, job, sets or [], table=table, model=model, output=output))


@app.command()
def plan(
    job: JobFile = None,
    table: TableOption = None,
    model: ModelOption = None,
    output: OutputOption = None,
    sets: _Sets = None,
    verbose: _Verbose = False,
) -> None:
    """Read and check everything, and print what `render` would do. Starts no worker, writes nothing."""
    from framefleet.jobs.show import console

    with console.reporting(verbose=verbose):
        from framefleet.jobs.commands import plan_command
        from framefleet.jobs.job.file import load_job

        plan_command(load_job(job, sets or [], table=table, model=model, output=output))


@app.command()
def replay(
    output: Annotated[str, typer.Argument(help="The output that holds the record.")],
    row_id: Annotated[str, typer.Argument(help="The row, as its record and its clip's name have it.")],
    model: Annotated[str | None, typer.Option("--model", help="Where the model is now, if it moved.")] = None,
    loras: Annotated[
        list[str] | None,
        typer.Option("--lora", metavar="NAME=PLACE", help="Where a LoRA is now, if it moved; repeatable."),
    ] = None,
    second_models: Annotated[
        list[str] | None,
        typer.Option(
            "--second-model",
            metavar="NAME=PLACE",
            help="Where a second model is now; repeatable.",
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Your recipe, as module:function, if the row is of one.")
    ] = None,
    roots: Annotated[
        list[str] | None,
        typer.Option("--root", help="Where its images and videos may be read, if not publicly; repeatable."),
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Load pickles of tensors where there are no safetensors.")
    ] = False,
    save: Annotated[Path | None, typer.Option("--save", help="Write the clip to this file.")] = None,
    script: Annotated[
        bool, typer.Option("--script", help="Print a script that does it with torch and diffusers alone.")
    ] = False,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="As storage_options.endpoint_url=...; repeatable."),
    ] = None,
    verbose: _Verbose = False,
) -> None:
    """Render one row again from its record and compare. Exit code 0: the very same frames; 1: others.

    The output is not trusted: code, pickles and places on private networks are yours to name.
    """
    from framefleet.jobs.show import console

    with console.reporting(verbose=verbose):
        from framefleet.jobs.commands import replay_command, script_command
        from framefleet.jobs.job.file import places, storage_options
        from framefleet.jobs.replay.recorded_row import Given

        given = Given(
            model=model,
            loras=places(loras or [], "--lora"),
            second_models=places(second_models or [], "--second-model"),
            recipe=recipe,
            roots=tuple(roots or []),
            allow_pickle=allow_pickle,
            storage_options=storage_options(sets or []),
        )
        if script:
            script_command(output, row_id, given)
            is_equal = True
        else:
            is_equal = replay_command(output, row_id, given, save=save)
    raise typer.Exit(0 if is_equal else 1)


@app.command()
def schema(
    train: Annotated[bool, typer.Option("--train", help="Of a training's job, not of a render job.")] = False,
) -> None:
    """Print the JSON Schema of a job file, for editors."""
    import json

    from framefleet.jobs.job.schema import Job, job_schema
    from framefleet.jobs.train.schema import TrainJob

    print(json.dumps(job_schema(TrainJob if train else Job), indent=2))


@app.command()
def demo(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="WORDS", help="Prompts, each in quotes; without any, a shipped table."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", help="The folder to make.")] = Path("demo-output"),
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="TxHxW", help="Frames, height and width of your clips: 33x64x64."),
    ] = None,
    verbose: _Verbose = False,
) -> None:
    """Render your words, or a small shipped table, with two CPU workers and the shipped model.

    The model knows one ball, square, triangle, star or ring that moves on a plain background:
    framefleet demo "a red ball bounces on a blue background" "一个黄色的星星在紫色背景上变大"
    """
    from framefleet.jobs.show import console

    with console.reporting(verbose=verbose, resumable=True):
        from framefleet.jobs.commands import demo_command

        failed = demo_command(output, words or [], size)
    raise typer.Exit(1 if failed else 0)


if __name__ == "__main__":
    main()
