"""What a terminal or a log shows of a job under way."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest

from framefleet import Progress
from framefleet.cluster.driver.progress import WorkerState
from framefleet.jobs.show.console import EscapingConsole
from framefleet.jobs.show.progress import MAX_WORKERS_SHOWN, Lines, Screen, picture, watch_on
from framefleet.jobs.show.watch import Awaited, Callback, Checked, Standing, duration, headline
from framefleet.plugins.train.reports import Preparing, TrainProgress

WORKERS = (
    WorkerState(name="worker-0", state="rendering", node="here", rows_in_hand=3, rows_done=5),
    WorkerState(name="worker-1", state="idle", node="there", rows_done=4),
)
TRAINED = TrainProgress(
    done=9, total=1200, loss=0.5, learning_rate=1e-4, steps_per_s=2.0, eta_s=595.5, kept=0
)


def progress(**changed: Any) -> Progress:
    values: dict[str, Any] = {
        "total": 1200,
        "done": 9,
        "failed": 1,
        "in_flight": 3,
        "elapsed_s": 75.0,
        "rows_per_s": 0.5,
        "eta_s": 3700.0,
        "mean_batch": 2.25,
        "workers": WORKERS,
    }
    return Progress(**values | changed)


def console(**options: Any) -> tuple[EscapingConsole, io.StringIO]:
    shown = io.StringIO()
    return EscapingConsole(file=shown, width=100, **options), shown


def text_of(shown: Standing) -> str:
    on, text = console()
    on.print(picture(shown))
    return text.getvalue()


def test_several_runs_of_a_job_say_what_they_open_once() -> None:
    on, shown = console()
    with Lines(on) as lines:
        for name in ("a", "b"):
            lines.show(Awaited(what="opening the model", since=time.monotonic()))
            lines.say("note: it is small")
            lines.show(Checked(num_rows=10))
            lines.say(f"run {name}")
    said = ["opening the model", "note: it is small", "10 rows checked", "run a", "run b"]
    assert shown.getvalue().splitlines() == said


NOTHING: dict[str, Any] = dict.fromkeys(("rows_per_s", "eta_s", "mean_batch")) | {"done": 0, "failed": 0}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({}, "9/1,200 rows, 0.50 rows/s, 1:01:40 left, mean batch 2.2, 1 failed"),
        (NOTHING | {"workers": ()}, "0/1,200 rows, workers are starting (1:15)"),
        (
            NOTHING | {"workers": (), "waiting_for": "loading the model"},
            "0/1,200 rows, loading the model (1:15)",
        ),
        (NOTHING, "0/1,200 rows, first clips under way (1:15)"),
    ],
)
def test_the_headline_holds_every_count_or_what_is_waited_for(changed: dict[str, Any], line: str) -> None:
    assert headline(progress(**changed)) == line


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (0.2, "0:01"), (59.5, "1:00"), (75, "1:15"), (90000, "25:00:00")]
)
def test_durations_read_like_clocks(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_picture_shows_the_headline_each_worker_and_the_last_failure() -> None:
    unused = "there (10.0.0.2) is no longer used: CUDA error"
    shown = text_of(progress(last_failure="ValueError: no\nTraceback ...", unused=(unused,)))
    assert unused in shown
    assert headline(progress()) in shown
    assert "worker-0  rendering  3 in hand  5 done  here" in shown
    assert "last failure: ValueError: no" in shown
    assert "Traceback" not in shown


def test_of_a_thousand_workers_most_are_only_counted() -> None:
    many = tuple(WorkerState(name=f"worker-{i}", state="idle") for i in range(1000))
    shown = text_of(progress(workers=many))
    assert f"{1000 - MAX_WORKERS_SHOWN} idle" in shown
    assert len(shown.splitlines()) < MAX_WORKERS_SHOWN + 5


def test_lines_come_at_most_every_five_seconds_with_the_first_and_the_last() -> None:
    on, shown = console()
    clock = Clock()
    with Lines(on, clock=clock) as lines:
        for done in range(14):
            clock.now = float(done)
            lines.show(progress(done=done))
    counts = [line.partition("/")[0] for line in shown.getvalue().splitlines()]
    assert counts == ["0", "5", "10", "13"]


def test_what_was_not_shown_yet_is_shown_before_what_is_said() -> None:
    on, shown = console()
    with Lines(on, clock=Clock()) as lines:
        lines.show(Checked(num_rows=1))
        lines.show(Checked(num_rows=2))
        lines.say("training")
    assert shown.getvalue().splitlines() == ["1 row checked", "2 rows checked", "training"]


TEN_HOURS_AGO = time.monotonic() - 36_001  # give or take what tests take


def test_a_log_names_what_is_waited_for_once_and_then_every_few_seconds() -> None:
    on, shown = console()
    clock, model = Clock(), Awaited(what="reading", since=TEN_HOURS_AGO)
    ray = Awaited(what="starting Ray", since=TEN_HOURS_AGO)
    with Lines(on, clock=clock) as lines:
        for now in range(12):
            clock.now = now / 2
            lines.show(model)
        lines.show(ray)
        lines.show(ray)
    first, again, other = shown.getvalue().splitlines()
    assert (first, other) == ("reading", "starting Ray") and again.startswith("reading (10:")


def test_on_a_terminal_the_seconds_of_a_wait_go_on_by_themselves() -> None:
    terminal, shown = console(force_terminal=True)
    with Screen(terminal) as screen:
        screen.show(Awaited(what="starting Ray", since=TEN_HOURS_AGO))
    assert "starting Ray (10:" in shown.getvalue()
    assert text_of(Awaited(what="starting Ray", since=TEN_HOURS_AGO)).startswith("starting Ray (10:")


def test_a_terminal_is_redrawn_and_a_pipe_gets_lines() -> None:
    terminal, shown = console(force_terminal=True)
    assert isinstance(watch_on(console()[0]), Lines)
    watch = watch_on(terminal)
    assert isinstance(watch, Screen)
    with watch:
        watch.show(Checked(num_rows=1000))
        watch.say("1,000 rows")
        watch.show(progress())
    assert "1,000 rows" in shown.getvalue()
    assert "worker-1" in shown.getvalue()


@pytest.mark.parametrize(
    ("standing", "line"),
    [
        (Checked(num_rows=1000), "1,000 rows checked"),
        (Preparing(done=3, total=1000), "3 of 1,000 rows prepared"),
        (progress(), headline(progress()) + ", workers rendering: 1 of 2"),
        (TRAINED, "9/1,200 steps, loss 0.5, 2.0 steps/s, 9:56 left, learning rate 0.0001"),
    ],
)
def test_one_watch_shows_whatever_is_under_way(standing: Standing, line: str) -> None:
    on, shown = console()
    Lines(on).show(standing)
    assert shown.getvalue() == line + "\n"
    assert headline(standing) in text_of(standing)


def test_a_callback_is_told_of_progress_alone() -> None:
    told: list[Standing] = []
    callback = Callback(told.append)
    callback.say("reading")
    others = (Awaited(what="", since=0.0), Checked(num_rows=1), Preparing(done=1, total=2), TRAINED)
    for standing in (*others, progress()):
        callback.show(standing)
    assert told == [progress()]
    Callback(told.append, TrainProgress).show(TRAINED)
    assert told == [progress(), TRAINED]
    Callback().show(progress())
