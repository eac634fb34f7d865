"""`framefleet shapes`: the dataset of the demo's model, that model untrained, and its examination."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from framefleet.jobs.options import StorageSets, Verbose
from framefleet.jobs.show.console import reporting, stdout
from framefleet.jobs.show.libraries import quiet_libraries
from framefleet.pipeline.errors import JobError

if TYPE_CHECKING:
    from framefleet.jobs.demo.shapes.evaluate import Score
    from framefleet.jobs.demo.shapes.size import Size


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

        show_prompts(
            file,
            scenes=scenes,
            seed=seed,
            new=new,
            languages=languages or (),
            guidance_scales=guidance or (),
            num_inference_steps=steps or (),
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

        show_evaluate(output, as_json=as_json, storage_options=storage_options(sets or []))


def show_dataset(
    output: str,
    *,
    clips: int,
    seed: int = 0,
    new_clips: int = 0,
    sizes: Sequence[str] = (),
    repeats: Sequence[str] = (),
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Write a dataset and print its table's place.

    new_clips: how many of them have the new shape or the new colour. sizes: each as "9x64x64". repeats: each
    as "star:4".
    """
    from framefleet.jobs.demo.shapes.dataset import write_dataset

    table = write_dataset(
        output,
        num_clips=clips,
        seed=seed,
        num_new=new_clips,
        sizes=_sizes(sizes),
        repeats=_repeats(repeats),
        storage_options=storage_options,
    )
    stdout.say(table)


def show_model(folder: Path, *, seed: int = 0) -> None:
    """Write the untrained pipeline and print where."""
    from framefleet.jobs.demo.shapes.blank_model import write_blank_model

    if folder.exists():
        raise JobError(f"{folder} exists already", "give a new folder")
    quiet_libraries()
    write_blank_model(folder, seed=seed)
    stdout.say(str(folder))


def show_prompts(
    file: str,
    *,
    scenes: int = 200,
    seed: int = 0,
    new: bool = False,
    languages: Sequence[str] = (),
    guidance_scales: Sequence[float] = (),
    num_inference_steps: Sequence[int] = (),
    sizes: Sequence[str] = (),
    loras: Sequence[str] = (),
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Write a table of held-out prompts for `render`; print its place. Of what is empty, the usual values."""
    from framefleet.jobs.demo.shapes.captions import LANGUAGES
    from framefleet.jobs.demo.shapes.prompts import (
        GUIDANCE_SCALES,
        NUM_INFERENCE_STEPS,
        prompt_rows,
        write_prompts,
    )
    from framefleet.jobs.demo.shapes.scene import new_scenes

    rows = prompt_rows(
        num_scenes=scenes,
        seed=seed,
        among=new_scenes() if new else None,
        languages=languages or LANGUAGES,
        guidance_scales=guidance_scales or GUIDANCE_SCALES,
        num_inference_steps=num_inference_steps or NUM_INFERENCE_STEPS,
        sizes=_sizes(sizes),
        loras=loras,
    )
    stdout.say(write_prompts(file, rows, storage_options))


def show_evaluate(
    output: str, *, as_json: bool = False, storage_options: Mapping[str, Any] | None = None
) -> None:
    """Print how often the clips of a render job show what was asked, for people or for machines."""
    from framefleet.jobs.demo.shapes.evaluate import evaluate

    scores = evaluate(output, storage_options)
    if as_json:
        print(json.dumps([_flat(score) for score in scores], indent=2))
    else:
        stdout.print(_table(scores))


def _sizes(texts: Sequence[str]) -> list[Size]:
    from framefleet.jobs.demo.shapes.size import SIZE, read_size

    return [read_size(text) for text in texts] or [SIZE]


def _repeats(texts: Sequence[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for text in texts:
        word, _, count = text.partition(":")
        if not count.isdecimal():
            raise JobError(f"--repeats {text!r}: it has no count", "write it as star:4")
        if word in counts:
            raise JobError(f"--repeats {text!r}: {word} is given twice", "leave one of them out")
        counts[word] = int(count)
    return counts


def _flat(score: Score) -> dict[str, Any]:
    values = asdict(score)
    return {**values.pop("settings"), "size": str(score.settings.size), **values}


def _table(scores: Sequence[Score]) -> Table:
    # The box has a space between columns; with more, 80 are not enough for a terminal.
    from framefleet.jobs.demo.shapes.evaluate import ATTRIBUTES

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    with_loras = any(score.settings.lora for score in scores)
    for name in (*(("lora",) if with_loras else ()), "lang.", "size"):
        table.add_column(name, no_wrap=True)
    for name in ("steps", "guidance", "clips", *(f"{name}\n%" for name in (*ATTRIBUTES, "all"))):
        table.add_column(name, justify="right")
    for score in scores:
        asked = score.settings
        shares = (f"{100 * getattr(score, name):.1f}" for name in (*ATTRIBUTES, "all"))
        lora = (asked.lora or "none",) if with_loras else ()
        guidance = f"{asked.guidance_scale:g}"
        numbers = (str(asked.num_inference_steps), guidance, str(score.num_clips))
        table.add_row(*lora, asked.language, str(asked.size), *numbers, *shares)
    return table
