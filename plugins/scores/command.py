"""`framefleet score`: what is typed, and what it prints."""

from __future__ import annotations

from typing import Annotated

from typer import Exit, Option

from framefleet.jobs.options import OutputToRead, StorageSets, Verbose, Where
from framefleet.jobs.show.console import reporting, stderr
from framefleet.pipeline.outputs.layout import SCORES


def score_command(
    output: OutputToRead,
    scores: Annotated[
        list[str] | None,
        Option(
            "--scores",
            help="Scores, separated by commas, e.g. sharpness,my_scores:colourful. "
            "Default: all that need no model; none with a model.",
        ),
    ] = None,
    similarity: Annotated[
        str | None,
        Option(
            "--similarity",
            metavar="FOLDER",
            help="Measure how well clips match their prompts, with the CLIP (text-image) model in this "
            "folder.",
        ),
    ] = None,
    nsfw: Annotated[
        str | None,
        Option(
            "--nsfw",
            metavar="FOLDER",
            help="Measure how likely clips are for adults only, with this image classifier.",
        ),
    ] = None,
    aesthetic: Annotated[
        str | None,
        Option(
            "--aesthetic",
            metavar="FILE",
            help="Measure how pleasing clips are, with LAION's head. Needs --clip.",
        ),
    ] = None,
    clip: Annotated[
        str | None, Option("--clip", metavar="FOLDER", help="The CLIP model of --aesthetic, ViT-L/14.")
    ] = None,
    where: Where = None,
    again: Annotated[
        bool, Option("--again", help="Measure again clips that already have these scores.")
    ] = False,
    threads: Annotated[
        int | None,
        Option(
            "--threads", min=1, metavar="N", help="Number of clips to measure at once. Default: one per core."
        ),
    ] = None,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Measure the clips of an output, and add the scores to its records. Run it again to continue.

    Needs no cluster. Exit code 1: clips are damaged and have no scores, or a score failed.
    """
    with reporting(verbose=verbose, resumable=True):
        from framefleet.jobs.job.file import storage_options_alone
        from framefleet.jobs.show.progress import watch_on
        from framefleet.jobs.show.watch import duration, wait_for
        from framefleet.pipeline.outputs.stores.store import Store
        from framefleet.plugins.scores.score_output import score

        options = storage_options_alone(sets)
        names = [name.strip() for text in scores or [] for name in text.split(",")]
        with watch_on(stderr) as watch:
            wait_for(watch, "looking for clips without these scores")
            summary = score(
                output,
                names,
                similarity=similarity,
                nsfw=nsfw,
                aesthetic=aesthetic,
                clip=clip,
                where=where,
                again=again,
                num_threads=threads,
                storage_options=options,
                on_progress=watch.show,
            )
        if not summary.done and not summary.num_damaged:
            stderr.say("nothing to do: every clip has these scores")
        else:
            columns = ", ".join(summary.columns)
            stderr.say(f"{summary.done:,} clips scored in {duration(summary.elapsed_s)}: {columns}")
            stderr.say(f"scores: {Store(output, options).url_of(SCORES)}")
        for name, failed in summary.unscored.items():
            stderr.say(f"{failed.num:,} clips have no {name}, e.g. {failed.example}")
        if summary.num_damaged:
            stderr.say(f"{summary.num_damaged:,} clips are damaged and have no scores, e.g. {summary.damage}")
    raise Exit(1 if summary.num_damaged or summary.unscored else 0)
