"""`framefleet demo`, as it is typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from framefleet.jobs.options import Verbose
from framefleet.jobs.show.console import reporting


def demo_command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WORDS", help="Prompts, each in quotes. Without prompts, the shipped table is rendered."
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", help="Folder to write.")] = Path("demo-output"),
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="TxHxW", help="Frames, height and width of your clips, e.g. 33x64x64."
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds", min=1, max=1000, help="Number of clips of each prompt, with the seeds 0, 1, 2, ..."
        ),
    ] = 4,
    verbose: Verbose = False,
) -> None:
    """Render your words, or a small shipped table, with two CPU workers and the shipped model.

    The model knows one ball, square, triangle, star or ring that moves on a plain background:
    framefleet demo "a red ball bounces on a blue background" "一个黄色的星星在紫色背景上变大"
    """
    with reporting(verbose=verbose, resumable=True):
        from framefleet.jobs.demo.shown import show_demo

        code = show_demo(output, words or [], size, num_seeds=seeds)
    raise typer.Exit(code)
