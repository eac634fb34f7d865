"""`framefleet score`: what is typed, and what it prints."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Exit, Option

from framefleet.jobs.options import StorageSets, Verbose
from framefleet.jobs.show.console import reporting, stderr
from framefleet.pipeline.outputs.layout import SCORES

_Output = Annotated[str, Argument(metavar="OUTPUT", help="Output whose clips to measure: a folder or a URL.")]
_Scores = Annotated[
    list[str] | None,
    Option(
        "--scores",
        help="Scores, separated by commas, e.g. sharpness,my_scores:colourful. "
        "Default: all that need no model; none with --similarity.",
    ),
]
_Similarity = Annotated[
    str | None,
    Option(
        "--similarity",
        metavar="FOLDER",
        help="Measure how well clips match their prompts, with the CLIP (text-image) model in this folder.",
    ),
]
_Where = Annotated[
    str | None,
    Option("--where", metavar="SQL", help='Measure only clips for which this is true, e.g. "seed < 8".'),
]
_Again = Annotated[bool, Option("--again", help="Measure again clips that already have these scores.")]
_Threads = Annotated[
    int | None,
    Option(
        "--threads", min=1, metavar="N", help="Number of clips to measure at once. Default: one per core."
    ),
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
        from framefleet.jobs.job.file import storage_options_alone
        from framefleet.jobs.show.headline import duration
        from framefleet.jobs.show.progress import watch_on
        from framefleet.pipeline.outputs.stores.store import Store
        from framefleet.plugins.scores.score_output import score_output

        store = Store(output, storage_options_alone(sets))
        names = [name.strip() for text in scores or [] for name in text.split(",")]
        with watch_on(stderr) as watch:
            found = score_output(
                store, names, watch, similarity=similarity, where=where, again=again, num_threads=threads
            )
        if not found.done and not found.num_damaged:
            stderr.say("nothing to do: every clip has these scores")
        else:
            columns = ", ".join(found.columns)
            stderr.say(f"{found.done:,} clips scored in {duration(found.elapsed_s)}: {columns}")
            stderr.say(f"scores: {store.url_of(SCORES)}")
        for name, failed in found.unscored.items():
            stderr.say(f"{failed.num:,} clips have no {name}, e.g. {failed.example}")
        if found.num_damaged:
            stderr.say(f"{found.num_damaged:,} clips are damaged and have no scores, e.g. {found.damage}")
    raise Exit(1 if found.num_damaged or found.unscored else 0)
