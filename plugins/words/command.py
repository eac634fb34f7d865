"""The commands `framefleet judge` and `framefleet prompts`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from framefleet.api.commands import AsJson, Sets, resumable, stderr, stdout
from framefleet.jobs.options import GivenJob


@resumable
def judge_command(
    job: GivenJob,
    again: Annotated[
        bool, Option("--again", help="Also ask again about clips for which an answer was refused for good.")
    ] = False,
    sets: Sets = None,
) -> None:
    """Ask about the clips of a job that have no answers yet: judgements and captions.

    Needs no cluster. Run it again to continue. Exit code 1: some clips still have no answer.
    """
    from framefleet.api.jobs import watch_on
    from framefleet.plugins.words.judge import judge_clips

    with watch_on(stderr) as watch:
        is_whole = judge_clips(job, watch, sets or [], again=again)
    if is_whole:
        stderr.say("every clip has its answers")
    raise Exit(0 if is_whole else 1)


@resumable
def prompts_command(
    job: Annotated[
        str, Argument(metavar="JOB.YAML|OUTPUT", help="Job file, or an output to show its prompts only.")
    ],
    corrections: Annotated[
        Path | None,
        Option(
            "--from",
            metavar="FILE",
            help="Replace written prompts with those in this file, in the format of --json: JSON lines with "
            "original_prompt, prompt and, if an original has several, question.",
        ),
    ] = None,
    as_json: AsJson = False,
    sets: Sets = None,
) -> None:
    """Write the missing prompts of a job, and show all of them.

    Nothing is rendered. After a correction, the next run renders rows with this prompt again.
    """
    import json
    from collections import Counter

    from framefleet.api.jobs import watch_on
    from framefleet.plugins.words import prompts

    texts = None if corrections is None else prompts.corrections_in(corrections)
    with watch_on(stderr) as watch:
        written = prompts.corrected_prompts(job, watch, sets or [], corrections=texts)
    num_texts = Counter(row.original for row in written)
    for row in written:
        question = row.question if num_texts[row.original] > 1 else None
        if as_json:
            line = {prompts.ORIGINAL: row.original, "prompt": row.prompt}
            line |= {} if question is None else {prompts.QUESTION_KEY: question}
            stdout.say(json.dumps(line, ensure_ascii=False))
        else:
            stdout.say(f"{question or row.original}\n    {row.prompt}")
