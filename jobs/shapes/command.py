"""`framefleet shapes`: the dataset of the demo's model, that model untrained, and its examination."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from framefleet.jobs.options import StorageSets, Verbose
from framefleet.jobs.show.console import reporting

_Seed = Annotated[int, typer.Option("--seed", min=0, help="Random seed.")]
_Sizes = Annotated[
    list[str] | None,
    typer.Option("--size", metavar="TxHxW", help="Frames, height and width; repeatable. Default: 9x64x64."),
]


def dataset_command(
    output: Annotated[str, typer.Argument(metavar="OUT", help="Folder or URL to write.")],
    clips: Annotated[int, typer.Option("--clips", min=1, help="Number of clips.")] = 16384,
    seed: _Seed = 0,
    new_clips: Annotated[
        int,
        typer.Option(
            "--new-clips", min=0, help="Number of clips that show combinations the model never saw."
        ),
    ] = 0,
    sizes: _Sizes = None,
    repeats: Annotated[
        list[str] | None,
        typer.Option(
            "--repeats",
            help="Number of times an epoch repeats the clips of a shape, e.g. star:4; repeatable.",
        ),
    ] = None,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Draw clips of moving shapes, with captions in English and Chinese, and a table of them."""
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import storage_options
        from framefleet.jobs.shapes.shown import show_dataset

        show_dataset(
            output,
            clips=clips,
            seed=seed,
            new_clips=new_clips,
            sizes=sizes or (),
            repeats=repeats or (),
            storage_options=storage_options(sets or []),
        )


def model_command(
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="Pipeline folder to write. Must not exist yet.")
    ],
    seed: _Seed = 0,
    verbose: Verbose = False,
) -> None:
    """Write the untrained pipeline from which `framefleet train` makes the demo's model."""
    with reporting(verbose=verbose):
        from framefleet.jobs.shapes.shown import show_model

        show_model(folder, seed=seed)


def prompts_command(
    file: Annotated[str, typer.Argument(metavar="TABLE.CSV", help="Table to write.")],
    scenes: Annotated[
        int, typer.Option("--scenes", min=1, help="Number of scenes. No dataset contains them.")
    ] = 200,
    seed: _Seed = 0,
    new: Annotated[
        bool,
        typer.Option("--new", help="Use only combinations of shape and colour that the model never saw."),
    ] = False,
    languages: Annotated[
        list[str] | None,
        typer.Option("--language", help="Language of the prompts: en or zh; repeatable. Default: both."),
    ] = None,
    guidance: Annotated[
        list[float] | None,
        typer.Option("--guidance", help="Guidance scale; repeatable. Default: 1, 4 and 6."),
    ] = None,
    steps: Annotated[
        list[int] | None, typer.Option("--steps", help="Number of steps; repeatable. Default: 16.")
    ] = None,
    sizes: _Sizes = None,
    loras: Annotated[
        list[str] | None,
        typer.Option("--lora", help="LoRA as in a table, e.g. none or style:0.8; repeatable."),
    ] = None,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Write a table of prompts for `render`, each with all settings. `evaluate` judges the clips."""
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import storage_options
        from framefleet.jobs.shapes.captions import LANGUAGES
        from framefleet.jobs.shapes.prompts import GUIDANCE_SCALES, NUM_INFERENCE_STEPS
        from framefleet.jobs.shapes.shown import show_prompts

        show_prompts(
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


def evaluate_command(
    output: Annotated[str, typer.Argument(help="Output of a render job of such a table.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Measure the clips by counting pixels, and print how often they show what was asked for."""
    with reporting(verbose=verbose):
        from framefleet.jobs.job.file import storage_options
        from framefleet.jobs.shapes.shown import show_evaluate

        show_evaluate(output, as_json=as_json, storage_options=storage_options(sets or []))
