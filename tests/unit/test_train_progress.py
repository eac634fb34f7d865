"""What a training shows of itself: loss, rate, time left, and the curve."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from framefleet import Store
from framefleet.jobs.show.console import EscapingConsole
from framefleet.jobs.show.progress import Lines
from framefleet.jobs.show.watch import headline
from framefleet.plugins.train.reports import LOSSES_PATH, Step, write_losses
from framefleet.plugins.train.task import Bucket
from framefleet.plugins.train.train import CURVE_SIZE, Pace, loss_curve, say_plan, write_loss_curve
from tests.toy_task import batches_of, settings


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
