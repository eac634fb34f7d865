"""`framefleet score`, as it is typed."""

from __future__ import annotations

from typing import Annotated

import typer

from framefleet.jobs.options import StorageSets, Verbose
from framefleet.jobs.show.console import reporting

_Output = Annotated[str, typer.Argument(help="Output whose clips to measure: a folder or a URL.")]
_Scores = Annotated[
    list[str] | None,
    typer.Option(
        "--scores",
        help="Scores, separated by commas, e.g. sharpness,my_scores:colourful. Default: all built-in scores.",
    ),
]
_Similarity = Annotated[
    str | None,
    typer.Option(
        "--similarity", metavar="FOLDER", help="CLIP model that measures how well clips match their prompts."
    ),
]
_Where = Annotated[
    str | None,
    typer.Option(
        "--where", metavar="SQL", help='Measure only clips for which this is true, e.g. "seed < 8".'
    ),
]
_Again = Annotated[bool, typer.Option("--again", help="Measure clips that already have these scores, too.")]
_Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Number of clips to measure at once. Default: one for each core."),
]


def score_command(
    output: _Output,
    scores: _Scores = None,
    similarity: _Similarity = None,
    where: _Where = None,
    again: _Again = False,
    threads: _Threads = None,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Measure the clips of an output, and add the scores to its records. Run it again to continue.

    Needs no cluster. Exit code 1: clips are damaged and have no scores, or a score failed.
    """
    with reporting(verbose=verbose, resumable=True):
        from framefleet.jobs.job.file import storage_options
        from framefleet.jobs.score.shown import show_score

        code = show_score(
            output,
            [name.strip() for text in scores or [] for name in text.split(",")],
            similarity=similarity,
            where=where,
            again=again,
            num_threads=threads,
            storage_options=storage_options(sets or []),
        )
    raise typer.Exit(code)
