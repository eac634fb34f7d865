"""`framefleet shapes`: the dataset of the demo's model, that model untrained, and its examination."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

shapes_app = typer.Typer(
    help="Make the clips that the demo's model is trained on, and measure what it renders.",
    no_args_is_help=True,
)

Seed = Annotated[int, typer.Option("--seed", min=0, help="Of what is drawn at random.")]
_Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="As storage_options.endpoint_url=...; repeatable."),
]
_Sizes = Annotated[
    list[str] | None,
    typer.Option("--size", metavar="TxHxW", help="Frames, height and width; repeatable. Unset: 9x64x64."),
]
_Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show logs, and tracebacks of errors.")]


@shapes_app.command()
def dataset(
    output: Annotated[str, typer.Argument(metavar="OUT", help="The folder or URL to write.")],
    clips: Annotated[int, typer.Option("--clips", min=1, help="How many.")] = 16384,
    seed: Seed = 0,
    new_clips: Annotated[
        int, typer.Option("--new-clips", min=0, help="How many of them show what the model never saw.")
    ] = 0,
    sizes: _Sizes = None,
    repeats: Annotated[
        list[str] | None,
        typer.Option("--repeats", help="As star:4, how often an epoch has its clips; repeatable."),
    ] = None,
    sets: _Sets = None,
    verbose: _Verbose = False,
) -> None:
    """Draw clips of moving shapes, with captions in English and Chinese, and a table of them."""
    from framefleet.jobs.show import console

    with console.reporting(verbose=verbose):
        from framefleet.jobs.job.file import storage_options
        from framefleet.jobs.shapes.commands import dataset_command

        dataset_command(
            output,
            clips=clips,
            seed=seed,
            new_clips=new_clips,
            sizes=sizes or (),
            repeats=repeats or (),
            storage_options=storage_options(sets or []),
        )


@shapes_app.command()
def model(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The pipeline folder to write; a new one.")],
    seed: Seed = 0,
    verbose: _Verbose = False,
) -> None:
    """Write the untrained pipeline that `framefleet train` turns into the demo's."""
    from framefleet.jobs.show import console

    with console.reporting(verbose=verbose):
        from framefleet.jobs.shapes.commands import model_command

        model_command(folder, seed=seed)


@shapes_app.command()
def prompts(
    file: Annotated[str, typer.Argument(metavar="TABLE.CSV", help="The table to write.")],
    scenes: Annotated[int, typer.Option("--scenes", min=1, help="How many; no dataset has them.")] = 200,
    seed: Seed = 0,
    new: Annotated[
        bool, typer.Option("--new", help="Only the shape and the colour that the model never saw.")
    ] = False,
    languages: Annotated[
        list[str] | None, typer.Option("--language", help="en or zh; repeatable. Unset: both.")
    ] = None,
    guidance: Annotated[
        list[float] | None, typer.Option("--guidance", help="Repeatable. Unset: 1, 4 and 6.")
    ] = None,
    steps: Annotated[list[int] | None, typer.Option("--steps", help="Repeatable. Unset: 16.")] = None,
    sizes: _Sizes = None,
    loras: Annotated[
        list[str] | None, typer.Option("--lora", help="As in a table, none or style:0.8; repeatable.")
    ] = None,
    sets: _Sets = None,
    verbose: _Verbose = False,
) -> None:
    """Write a table of prompts for `render`, each at all settings, whose clips `evaluate` can judge."""
    from framefleet.jobs.show import console

    with console.reporting(verbose=verbose):
        from framefleet.jobs.job.file import storage_options
        from framefleet.jobs.shapes.captions import LANGUAGES
        from framefleet.jobs.shapes.commands import prompts_command
        from framefleet.jobs.shapes.prompts import GUIDANCE_SCALES, NUM_INFERENCE_STEPS

        prompts_command(
            file,
            scenes=scenes,
            seed=seed,
            new=new,
            languages=languages or LANGUAGES,
            guidance_scales=guidance or GUIDANCE_SCALES,
            num_inference_steps=steps or NUM_INFERENCE_STEPS,
            sizes=sizes or (),
            loras=loras or (),
            storage_options=storage_options(sets or []),
        )


@shapes_app.command()
def evaluate(
    output: Annotated[str, typer.Argument(help="The output of a render job of such a table.")],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    sets: _Sets = None,
    verbose: _Verbose = False,
) -> None:
    """Measure the clips, by counting pixels, and print how often they show what was asked."""
    from framefleet.jobs.show import console

    with console.reporting(verbose=verbose):
        from framefleet.jobs.job.file import storage_options
        from framefleet.jobs.shapes.commands import evaluate_command

        evaluate_command(output, as_json=as_json, storage_options=storage_options(sets or []))
