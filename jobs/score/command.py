"""`framefleet score`, as it is typed."""

from __future__ import annotations

from typing import Annotated

import typer

from framefleet.jobs.options import StorageSets, Verbose
from framefleet.jobs.show.console import reporting

_Output = Annotated[str, typer.Argument(help="The output whose clips are measured: a folder or a URL.")]
_Scores = Annotated[
    list[str] | None,
    typer.Option("--scores", help="By commas, as sharpness,my_scores:colourful; unset: framefleet's."),
]
_Similarity = Annotated[
    str | None,
    typer.Option("--similarity", metavar="FOLDER", help="A CLIP model: how near clips are to prompts."),
]
_Where = Annotated[
    str | None, typer.Option("--where", metavar="SQL", help='Only clips for which it is true, as "seed < 8".')
]
_Again = Annotated[bool, typer.Option("--again", help="Also clips that have these scores already.")]
_Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Clips at once; unset: one a core.")]


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
    """Measure the clips of an output, and add the scores to its records. Run it again to go on.

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
