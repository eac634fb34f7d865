"""What a terminal or a log shows of a job or a training under way, and when the time left is told."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from framefleet import Progress, Store
from framefleet.cluster.driver.progress import WorkerState
from framefleet.cluster.driver.tally import Point, Tally, TimeLeft, eta_s
from framefleet.jobs.show.console import EscapingConsole
from framefleet.jobs.show.progress import MAX_WORKERS_SHOWN, Lines, Screen, picture, watch_on
from framefleet.jobs.show.watch import Awaited, Callback, Checked, Standing, duration, headline
from framefleet.plugins.train.reports import LOSSES_PATH, Preparing, Step, TrainProgress, write_losses
from framefleet.plugins.train.task import Bucket
from framefleet.plugins.train.train import CURVE_SIZE, Pace, loss_curve, say_plan, write_loss_curve
from tests.training_jobs import batches_of, settings

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


def ten_hours_ago() -> float:
    return time.monotonic() - 36_001


def test_a_log_names_what_is_waited_for_once_and_then_every_few_seconds() -> None:
    on, shown = console()
    clock, model = Clock(), Awaited(what="reading", since=ten_hours_ago())
    ray = Awaited(what="starting Ray", since=ten_hours_ago())
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
        screen.show(Awaited(what="starting Ray", since=ten_hours_ago()))
    assert "starting Ray (10:" in shown.getvalue()
    assert text_of(Awaited(what="starting Ray", since=ten_hours_ago())).startswith("starting Ray (10:")


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


def step(number: int, loss: float) -> Step:
    return Step(step=number, loss=loss, learning_rate=1e-4, grad_norm=1.0, seconds=0.5)


def test_the_headline_has_loss_rate_and_time_left() -> None:
    pace = Pace(100)
    assert headline(pace.stepped(step(10, 3.0), 0.0)) == "11/100 steps, loss 3, learning rate 0.0001"
    pace.kept = 10
    second = pace.stepped(step(11, 1.0), 0.5)
    assert headline(second) == (
        "12/100 steps, loss 2, 2.0 steps/s, 0:44 left, learning rate 0.0001, checkpoint 10"
    )
    pace = Pace(100)
    pace.stepped(step(0, 1.0), 0.0)
    assert "12.0 s/step, 19:36 left" in headline(pace.stepped(step(1, 1.0), 12.0))


def test_rows_that_are_never_used_are_told() -> None:
    sizes = [Bucket(num_frames=5, height=16, width=16)] * 8 + [Bucket(num_frames=9, height=16, width=16)] * 3
    told = io.StringIO()
    batches = batches_of(sizes, batch_size=4)
    say_plan(settings(steps=6, batch_size=4), batches, Lines(EscapingConsole(file=told)))
    assert told.getvalue().splitlines() == [
        "6 steps of 4 rows: 3 epochs",
        "never used: 3 rows of 9 x 16 x 16: a batch has 4 of one size",
    ]


def test_the_curve_falls_as_the_losses_do() -> None:
    picture = np.asarray(
        Image.open(io.BytesIO(loss_curve([2.0 ** (-i / 20) for i in range(200)]))).convert("RGB")
    )
    assert picture.shape == (CURVE_SIZE[1], CURVE_SIZE[0], 3)
    is_line = picture[..., 2].astype(int) - picture[..., 0] > 60
    heights = [np.nonzero(is_line[:, column])[0].mean() for column in (150, 500, 900)]
    assert heights == sorted(heights)


def test_a_curve_of_one_step_or_none_is_no_error(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write_loss_curve(store)
    assert not (tmp_path / "loss.png").exists()
    write_losses(store, [step(0, 0.0)])
    write_loss_curve(store)
    assert Image.open(tmp_path / "loss.png").size == CURVE_SIZE
    assert store.exists(LOSSES_PATH)


def batches(count: int, *, size: int, each_s: float = 10.0, since: float = 0.0) -> list[Point]:
    """Return when the rows of one worker were finished: all of a batch at its end."""
    return [(since + each_s * (number // size + 1), number + 1) for number in range(count * size)]


def told(points: Sequence[Point], *, left: int = 100, workers: int = 1, batch: float = 1.0) -> float | None:
    return eta_s(points, left, now=points[-1][0], workers=workers, batch=batch)


@pytest.mark.parametrize(
    ("points", "workers"),
    [
        ([(0.0, 0)], 1),
        (batches(9, size=1), 0),
        ([(0.0, 0), (300.0, 1), *((300.0 + n, n + 1) for n in range(1, 6))], 1),  # a slow start
        ([(float(n**4), n) for n in range(1, 40)], 1),  # rows that take more and more time
    ],
)
def test_nothing_is_told_without_rows_workers_and_a_pace(points: list[Point], workers: int) -> None:
    assert told(points, workers=workers) is None


@pytest.mark.parametrize(("size", "workers"), [(1, 1), (8, 1), (1, 4)])
def test_the_first_batches_of_every_worker_are_waited_for(size: int, workers: int) -> None:
    first = [count for count in range(1, 40) if told(batches(count, size=size), workers=workers, batch=size)]
    assert first[0] >= max(4, 2 * workers)


def test_even_rows_give_their_pace() -> None:
    assert told(batches(21, size=1, each_s=3.0), left=50) == pytest.approx(150.0)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_batches_that_end_at_once_do_not_make_it_flicker(size: int) -> None:
    points = batches(30, size=size)
    enough = next(n for n in range(1, len(points)) if told(points[:n], batch=size) is not None)
    assert all(told(points[:n], batch=size) is not None for n in range(enough, len(points)))
    assert told(points, left=size, batch=size) == pytest.approx(10.0, rel=0.1)


def test_a_silence_makes_it_quiet_until_rows_come_again() -> None:
    points = batches(20, size=1)
    assert eta_s(points, 10, now=points[-1][0] + 25, workers=1, batch=1.0) is not None
    assert eta_s(points, 10, now=points[-1][0] + 35, workers=1, batch=1.0) is None


def test_what_is_told_of_rows_of_changing_lengths_is_near_what_comes() -> None:
    draw = random.Random(0)
    now, points = 0.0, []
    for number in range(400):
        now += draw.uniform(1, 9)
        points.append((now, number + 1))
    for seen in range(60, 300, 20):
        guessed = told(points[:seen], left=400 - seen)
        assert guessed == pytest.approx(now - points[seen - 1][0], rel=0.25)


def test_another_number_of_workers_begins_anew_and_one_of_many_does_not() -> None:
    pace = TimeLeft()
    for number in range(20):
        pace.finished(number, now=float(number), workers=1)
    assert pace.eta_s(10, now=19.0, batch=1.0) == pytest.approx(10.0)
    pace.finished(20, now=20.0, workers=2)
    assert pace.eta_s(10, now=20.0, batch=1.0) is None
    for number in range(21, 300):
        pace.finished(number, now=float(number), workers=40 + number % 3)
    assert pace.eta_s(10, now=299.0, batch=1.0) == pytest.approx(10.0)


def test_a_run_is_quiet_about_its_end_at_first_and_tells_it_then() -> None:
    tally = Tally(100, now=0.0, before=7)
    tally.joined("worker-0", "here")
    tally.leased(now=0.0)
    etas = []
    for second in range(1, 51):
        tally.done("worker-0", 1.0)
        etas.append(tally.progress(float(second)).eta_s)
    assert etas[:4] == [None] * 4
    assert etas[-1] == pytest.approx(50.0)
    assert tally.progress(50.0).before == 7
