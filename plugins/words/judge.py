"""Ask about the clips of a job that have no answers yet, also while it renders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framefleet.api.commands import Callback, Watch
from framefleet.api.errors import JobError
from framefleet.api.jobs import Job, load_job, store_of_job
from framefleet.api.outputs import RECORDS, Output
from framefleet.jobs.job.columns import open_columns
from framefleet.pipeline.outputs.parts.seals import parts_in
from framefleet.plugins.columns.fill import Filling
from framefleet.plugins.columns.follow import at_end, fill_all, jobs_of_outputs
from framefleet.plugins.words.endpoint import counting_requests


def judge(
    job: Job | str | Path | Mapping[str, Any], *, sets: Sequence[str] = (), again: bool = False
) -> bool:
    """Ask about the clips of a job that have no answers yet; return whether every clip has its answers now.

    job: a job file's path, or its content. sets: e.g. "judge=[...]". again: also ask again about clips for
    which an answer was refused for good. The same call continues after an interruption. Raises JobError for a
    job without questions or clips, and while another process asks.
    """
    return judge_clips(job, Callback(), sets, again=again)


@counting_requests()
def judge_clips(
    job: Job | str | Path | Mapping[str, Any],
    watch: Watch,
    sets: Sequence[str] = (),
    *,
    again: bool = False,
) -> bool:
    """Do what `judge` does, reporting to `watch`."""
    job = load_job(job, sets)
    outputs = jobs_of_outputs(job).items()
    with_clips = {name: one for name, one in outputs if parts_in(store_of_job(one), RECORDS)}
    if not open_columns(job, late_alone=True):
        raise JobError("the job has no questions about its clips", "add a section `judge` or `captions`")
    if not with_clips:
        raise Output(store_of_job(job)).no_records()
    is_whole = True
    for name, one in with_clips.items():
        if columns := open_columns(one, late_alone=True):
            if name:
                watch.say(f"{name}:")
            # A condition may be about what the others answer.
            in_turn = [column for column in columns if column.where is None], at_end(columns)
            fillings = [Filling(store_of_job(one), some, again=again) for some in in_turn if some]
            for filling in fillings:
                with filling:
                    is_whole &= fill_all(filling, watch)
    return is_whole
