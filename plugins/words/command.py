"""`framefleet judge` and `framefleet prompts`: what is typed, and what they print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Exit, Option

from framefleet.jobs.options import AsJson, JobOrOutput, Sets, Verbose
from framefleet.jobs.show.console import reporting, stderr, stdout
from framefleet.pipeline.errors import count_text


def judge_command(output: JobOrOutput, sets: Sets = None, verbose: Verbose = False) -> None:
    """Ask about the clips of an output that have no answers yet: judgements and captions.

    Needs no cluster. Run it again to continue. Exit code 1: some clips still have no answer.
    """
    with reporting(verbose=verbose, resumable=True):
        from framefleet.doors import runners_of
        from framefleet.jobs.job.output import below, store_of_job
        from framefleet.jobs.job.steps import for_choice
        from framefleet.jobs.render.claim import job_of
        from framefleet.jobs.show.progress import watch_on
        from framefleet.pipeline.errors import JobError
        from framefleet.pipeline.outputs.layout import RECORDS
        from framefleet.pipeline.outputs.output import Output
        from framefleet.pipeline.outputs.parts.seals import parts_in
        from framefleet.plugins.words.answers import Answers, fill_all, late_steps

        unused = ["marks", "post", "recipe", "scores"]
        job, is_whole = job_of(output, ["fleet.address=auto", *(sets or [])], unused), True
        inner = [runner.inner for runner in runners_of(job) if runner.inner]
        jobs = {
            name: job.model_copy(update={"output": below(job, name), **for_choice(job)}) for name in inner
        }
        with_clips = {
            name: one for name, one in {**jobs, "": job}.items() if parts_in(store_of_job(one), RECORDS)
        }
        if not late_steps(job):
            raise JobError("the job asks nothing about its clips", "give it a section `judge` or `captions`")
        if not with_clips:
            raise Output(store_of_job(job)).no_records()
        with watch_on(stderr) as watch:
            for name, one in with_clips.items():
                if steps := late_steps(one):
                    if name:
                        watch.say(f"{name}:")
                    is_whole &= fill_all(Answers(store_of_job(one), steps), watch)
        if is_whole:
            stderr.say("every clip has its answers")
    raise Exit(0 if is_whole else 1)


def prompts_command(
    output: JobOrOutput,
    corrections: Annotated[
        Path | None,
        Option(
            "--from",
            metavar="FILE",
            help="Replace written prompts by those of this file, as --json prints them: JSON lines with "
            "original_prompt and prompt.",
        ),
    ] = None,
    as_json: AsJson = False,
    sets: Sets = None,
    verbose: Verbose = False,
) -> None:
    """Show the prompts that were written for a job. Given a job file, write those that are missing first.

    Nothing is rendered. After a correction, rows with the prompt are rendered again by the next run.
    """
    with reporting(verbose=verbose, resumable=True):
        import json

        from framefleet.jobs.job.file import storage_options_alone
        from framefleet.jobs.job.output import store_of_job
        from framefleet.jobs.render.claim import is_job_file, job_of
        from framefleet.jobs.show.progress import watch_on
        from framefleet.pipeline.errors import JobError
        from framefleet.pipeline.outputs.stores.store import Store
        from framefleet.plugins.words import prompts

        if is_job_file(output):
            job = job_of(output, sets or [])
            store = store_of_job(job)
            with watch_on(stderr) as watch:
                prompts.write_prompts(job, watch)
        else:
            store = Store(output, storage_options_alone(sets))
        if corrections is not None:
            num = prompts.replace_prompts(store, prompts.corrections_in(corrections))
            stderr.say(f"{count_text(num, 'prompt')} replaced")
        texts = {row[prompts.ORIGINAL]: row["prompt"] for row in prompts.written_in(store).values()}
        if not texts:
            problem = f"{store.url_of('')} has no written prompts"
            raise JobError(problem, "give the job file, which has a section `prompts`")
        for original, text in texts.items():
            if as_json:
                row = {prompts.ORIGINAL: original, "prompt": text}
                stdout.say(json.dumps(row, ensure_ascii=False))
            else:
                stdout.say(f"{original}\n    {text}")
