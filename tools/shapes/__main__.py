"""Make what the demo's model learns from, and score what it renders: `python -m tools.shapes --help`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from framefleet.jobs.show.console import reporting, stdout
from framefleet.pipeline.errors import JobError
from framefleet.plugins.demo.prepare import Size, read_size
from tools.shapes.dataset import write_dataset
from tools.shapes.evaluate import ATTRIBUTES, Score, evaluate as scores_of
from tools.shapes.prompts import GUIDANCE_SCALES, NUM_INFERENCE_STEPS, prompt_rows, write_prompts
from tools.shapes.scenes import LANGUAGES, SIZE, new_scenes

app = typer.Typer(
    help="Make the training clips of the demo's model, and score what it renders.", no_args_is_help=True
)

_Seed = Annotated[int, typer.Option("--seed", min=0, help="Random seed.")]
_Sizes = Annotated[
    list[str] | None,
    typer.Option("--size", metavar="TxHxW", help="Frames, height and width; repeatable. Default: 9x64x64."),
]


@app.command()
def dataset(
    output: Annotated[str, typer.Argument(metavar="OUT", help="Folder or URL to write.")],
    clips: Annotated[int, typer.Option("--clips", min=1, help="Number of clips.")] = 16384,
    seed: _Seed = 0,
    new_clips: Annotated[
        int, typer.Option("--new-clips", help="Number of clips of combinations that the model never saw.")
    ] = 0,
    sizes: _Sizes = None,
    repeats: Annotated[
        list[str] | None,
        typer.Option("--repeats", help="How often an epoch has clips of a shape, as star:4; repeatable."),
    ] = None,
) -> None:
    """Draw clips of moving shapes, with captions in English and Chinese, and write a table of them."""
    stdout.say(
        write_dataset(
            output,
            num_clips=clips,
            seed=seed,
            num_new=new_clips,
            sizes=_sizes(sizes),
            repeats=_repeats(repeats),
        )
    )


@app.command()
def model(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Pipeline folder to write. Must be new.")],
    seed: _Seed = 0,
) -> None:
    """Write the untrained pipeline from which `framefleet train` makes the demo's model."""
    from tools.shapes.blank_model import write_blank_model  # which imports diffusers

    if folder.exists():
        raise JobError(f"{folder} exists already", "give a new folder")
    write_blank_model(folder, seed=seed)
    stdout.say(str(folder))


@app.command()
def prompts(
    file: Annotated[str, typer.Argument(metavar="TABLE.CSV", help="Table to write.")],
    scenes: Annotated[
        int, typer.Option("--scenes", min=1, help="Number of scenes. No dataset contains them.")
    ] = 200,
    seed: _Seed = 0,
    new: Annotated[
        bool, typer.Option("--new", help="Use only shapes and colours that the model never saw.")
    ] = False,
    languages: Annotated[
        list[str] | None,
        typer.Option("--language", help="Language of the prompts; repeatable. Default: en, zh."),
    ] = None,
    guidance_scales: Annotated[
        list[float] | None, typer.Option("--guidance", help="Guidance scale; repeatable. Default: 1, 4, 6.")
    ] = None,
    steps: Annotated[
        list[int] | None, typer.Option("--steps", help="Number of steps; repeatable. Default: 16.")
    ] = None,
    sizes: _Sizes = None,
    loras: Annotated[
        list[str] | None,
        typer.Option("--lora", help="LoRA as in a table, e.g. none or style:0.8; repeatable."),
    ] = None,
) -> None:
    """Write a table of prompts for `framefleet render`, each with all settings."""
    rows = prompt_rows(
        num_scenes=scenes,
        seed=seed,
        among=new_scenes() if new else None,
        languages=languages or LANGUAGES,
        guidance_scales=guidance_scales or GUIDANCE_SCALES,
        num_inference_steps=steps or NUM_INFERENCE_STEPS,
        sizes=_sizes(sizes),
        loras=loras or (),
    )
    stdout.say(write_prompts(file, rows, None))


@app.command()
def evaluate(
    output: Annotated[str, typer.Argument(help="Output of a render job of such a table.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Measure the clips by counting pixels, and print how often they show what was asked for."""
    scores = scores_of(output)
    if as_json:
        print(json.dumps([_flat(score) for score in scores], indent=2))
    else:
        stdout.print(_table(scores))


def _sizes(texts: Sequence[str] | None) -> list[Size]:
    return [read_size(text) for text in texts or ()] or [SIZE]


def _repeats(texts: Sequence[str] | None) -> dict[str, int]:
    counts: dict[str, int] = {}
    for text in texts or ():
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


if __name__ == "__main__":
    with reporting(verbose=False):
        app()
