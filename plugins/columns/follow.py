"""Fill late columns while a job renders, when its rows have ended, and later."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from framefleet.api.clips import ClipColumn
from framefleet.api.commands import Watch, wait_for
from framefleet.api.errors import FramefleetError, JobError, StoreError, count_text
from framefleet.api.jobs import Job, below, store_of_job
from framefleet.api.outputs import RECORDS, Store
from framefleet.api.texts import public_text
from framefleet.cluster.driver.epoch_lock import BEAT_S
from framefleet.cluster.driver.lock import STOP, requests_to
from framefleet.jobs.doors import inner_outputs_of
from framefleet.jobs.job.columns import open_columns
from framefleet.jobs.job.steps import for_choice
from framefleet.pipeline.outputs.parts.seals import Part, epochs_of, live_parts, parts_in
from framefleet.plugins.columns.fill import Filling

# How often to look for new records, but for at most a twentieth of the time, since it reads all of scores/.
_POLL_S, _POLL_SHARE, _MAX_PAUSE_S = 3.0, 0.05, 60.0

log = logging.getLogger(__name__)


def fill_all(filling: Filling, watch: Watch) -> bool:
    """Ask about all clips of an output that lack a value, and report. Return whether all have one now."""
    try:
        filling.fill(watch=watch)
        problem = filling.problem
    except FramefleetError as error:  # from a store or a condition; the clips' records are complete anyway
        problem = error.problem
    if filling.num_answers:
        watch.say(f"{count_text(filling.num_answers, 'answer')} about clips")
    if problem:
        refused = filling.num_refused.total()
        again = f" --again, as {refused:,} were refused for good" if refused else ""
        log.warning("%s; to ask again: framefleet judge JOB.YAML%s", public_text(problem), again)
    return not problem


def fill_at_end(job: Job, watch: Watch) -> None:
    """Fill the columns for chosen clips only."""
    columns, store = at_end(open_columns(job, late_alone=True)), store_of_job(job)
    if columns and parts_in(store, RECORDS):
        with ExitStack() as held:
            _finish(Filling(store, columns), held, threading.Event(), watch)


def at_end(columns: Sequence[ClipColumn]) -> list[ClipColumn]:
    """Return columns with a condition, whose result may change until all rows have ended."""
    return [column for column in columns if column.where is not None]


def check_questions(job: Job) -> None:
    """Raise JobError if a column of an output, or of its drafts, has answers to another question."""
    for one in jobs_of_outputs(job).values():
        if columns := open_columns(one, late_alone=True):
            Filling(store_of_job(one), columns)


def jobs_of_outputs(job: Job) -> dict[str, Job]:
    """Return the job with the questions for each inner output, by name, and the job itself."""
    names, of_inner = inner_outputs_of(job), for_choice(job)
    inner = {name: job.model_copy(update={"output": below(job, name), **of_inner}) for name in names}
    return {**inner, "": job}


@contextmanager
def following(job: Job, watch: Watch) -> Iterator[None]:
    """Fill late columns while a job's rows are rendered, and the rest when they have ended.

    An endpoint that is down delays nothing; its columns stay null. Entering raises UserError.
    """
    store, late = store_of_job(job), open_columns(job, late_alone=True)
    if conditional := at_end(late):
        Filling(store, conditional)  # raises now, before rows are rendered
    if not (columns := [column for column in late if column.where is None]):
        yield
        return
    filling, ending, ended, held = Filling(store, columns), threading.Event(), threading.Event(), ExitStack()
    args = (filling, store, held, ending)
    (thread := threading.Thread(target=_follow, args=args, name="answers", daemon=True)).start()
    try:
        yield
        ending.set()
        wait_for(watch, f"waiting for {', '.join(column.name for column in columns)}")
        stop_args = (filling, store, ended)
        threading.Thread(target=_end_if_stopped, args=stop_args, name="stop", daemon=True).start()
        thread.join()
        _finish(filling, held, ended, watch)
    finally:
        ending.set()
        ended.set()
        if thread.is_alive():
            filling.end()
            thread.join()
        held.close()


def _finish(filling: Filling, held: ExitStack, ended: threading.Event, watch: Watch) -> None:
    """Fill the rest once no other process does, unless the run is stopped before.

    Errors are only reported, since the clips' records are complete anyway.
    """
    pause_s = _POLL_S
    try:
        while not (filling.is_held or ended.is_set()):
            try:
                held.enter_context(filling)
            except JobError as in_use:
                wait_for(watch, f"waiting: {in_use.problem}")
                ended.wait(pause_s)
                pause_s = min(2 * pause_s, _MAX_PAUSE_S)
    except StoreError as error:
        log.warning("%s", error.problem)
    if filling.is_held:
        fill_all(filling, watch)


def _follow(filling: Filling, store: Store, held: ExitStack, ending: threading.Event) -> None:
    """Ask about clips when they get records, until `ending` is set. Raises nothing."""
    done: set[Part] = set()
    pause_s = _POLL_S
    while not ending.wait(pause_s) and not filling.is_ended:
        started = time.monotonic()
        try:
            if not filling.is_held:
                held.enter_context(filling)
            new = [part for part in live_parts(store) if part not in done]
            if not new or filling.fill(new):
                done.update(new)
                pause_s = _POLL_S if new else max(_POLL_S, (time.monotonic() - started) / _POLL_SHARE)
            else:
                pause_s = min(2 * pause_s, _MAX_PAUSE_S)
        except Exception as error:  # from a store, or another process fills them; the last pass reports it
            log.info("%s", public_text(f"asking about clips: {error}"))
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)


def _end_if_stopped(filling: Filling, store: Store, ended: threading.Event) -> None:
    """End the pass soon after `framefleet stop`; check until `ended` is set."""
    while not ended.wait(BEAT_S):
        with suppress(StoreError):  # the next check may succeed
            is_asked = STOP in requests_to(store, max(epochs_of(store), default=0))
            if is_asked and not ended.is_set():  # else the requests now belong to another run
                ended.set()
                filling.end()
                return
