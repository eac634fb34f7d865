"""The command `framefleet demo`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from framefleet.api.commands import resumable, stderr, stdout
from framefleet.api.errors import JobError, command


@resumable
def demo_command(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", help="Prompts, each in quotes. Default: a table of 28 rows."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", help="Folder to write. Clips are added to it.")] = Path(
        "demo-output"
    ),
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="TxHxW", help="Frames, height and width of your clips, e.g. 33x64x64."
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds",
            min=1,
            max=1000,
            help="Number of clips per prompt, e.g. 4 for the seeds 0, 1, 2 and 3.",
        ),
    ] = 4,
) -> None:
    """Render your prompts, or a small table, on two CPU workers, with a small model that is included.

    The model can only draw one ball, square, triangle, star or ring that moves on a plain background, e.g.
    framefleet demo "a red ball bounces on a blue background" "一个黄色的星星在紫色背景上变大"
    """
    from framefleet.jobs.render.command import show_render
    from framefleet.plugins.demo.demo import draw_pictures
    from framefleet.plugins.demo.prepare import prepare_demo, read_size
    from framefleet.plugins.demo.vocabulary import hint_about

    if words and len(words) > 1 and all(word.isascii() and " " not in word for word in words):
        problem = f"there are {len(words)} prompts of one word each"
        raise JobError(problem, f"put each prompt in quotes: {command('demo', ' '.join(words))}")
    if file := next(filter(os.path.isfile, words or []), None):
        raise JobError(f"{file} is a file, and the demo renders prompts", "name it as `table` in a job file")
    job = prepare_demo(output, words or [], read_size(size) if size else None, num_seeds=seeds)
    for hint in filter(None, map(hint_about, words or [])):
        stderr.say(f"hint: {hint}")
    if words and seeds > 1:
        stderr.say(f"each prompt is rendered {seeds} times, with different noise (--seeds 1: once)")
    code = show_render(job)
    for name, place in {"clips": output / "clips", **draw_pictures(output)}.items():
        stdout.say(f"{name + ':':<15}{place}")
    raise typer.Exit(code)
