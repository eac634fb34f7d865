"""The command `framefleet score`."""

from __future__ import annotations

from typing import Annotated

from typer import Exit, Option

from framefleet.api.commands import OutputToRead, StorageSets, Where, duration, resumable, stderr, wait_for
from framefleet.api.errors import count_text
from framefleet.pipeline.outputs.layout import SCORES


@resumable
def score_command(
    output: OutputToRead,
    scores: Annotated[
        list[str] | None,
        Option(
            "--scores",
            metavar="SCORES",
            help="Scores, as in a job file, e.g. sharpness,my_scores:colourful or "
            "'{similarity: /models/clip}'; repeatable. Default: all that need no model.",
        ),
    ] = None,
    where: Where = None,
    again: Annotated[
        bool, Option("--again", help="Also measure and replace scores that clips already have.")
    ] = False,
    sets: StorageSets = None,
) -> None:
    """Measure missing scores of an output's clips, and add them to its records. Run it again to continue.

    Needs no cluster. Failed scores are tried again. Exit code 1: a clip is damaged, or a score failed.
    """
    from framefleet.api.jobs import storage_options, watch_on
    from framefleet.api.outputs import Store
    from framefleet.jobs.job.yaml_text import parse_yaml
    from framefleet.plugins.scores.score_output import score

    options = storage_options(sets)
    wanted = [one for text in scores or [] for one in parse_yaml(f"[{text}]", source="--scores")[0]]
    with watch_on(stderr) as watch:
        wait_for(watch, "looking for clips without these scores")
        summary = score(
            output,
            wanted,
            where=where,
            again=again,
            storage_options=options,
            on_progress=watch.show,
        )
    failed_everywhere = {name for name, one in summary.unscored.items() if one.num == summary.done}
    if columns := [name for name in summary.columns if name not in failed_everywhere]:
        clips = f"{count_text(summary.done, 'clip')} scored in {duration(summary.elapsed_s)}"
        stderr.say(f"{clips}: {', '.join(columns)}")
        stderr.say(f"scores: {Store(output, options).url_of(SCORES)}")
    elif not (summary.done or summary.num_damaged):
        stderr.say("nothing to do: every clip has these scores; --again measures them again")
    for name, failed in summary.unscored.items():
        problem = f"the score {name} failed for {count_text(failed.num, 'clip')}, e.g. {failed.example}"
        stderr.say(problem, level="warning")
    if summary.num_damaged:
        damaged = count_text(summary.num_damaged, "damaged clip")
        stderr.say(f"{damaged} without scores, e.g. {summary.damage}")
    raise Exit(1 if summary.num_damaged or summary.unscored else 0)
