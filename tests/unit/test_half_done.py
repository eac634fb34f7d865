"""A task goes on from what its denoiser returned elsewhere; whatever is otherwise is found.

Checkpoints of rows that a job no longer has stay in its output for a run that has them again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from framefleet import HalfDone, Renderer, Request, Store
from framefleet.cluster.driver.commit import HalfDoneRows, half_done_in
from framefleet.cluster.worker.checkpointer import Checkpointer, checkpoint_path
from framefleet.cluster.worker.worker import LOGGERS, Remarks
from framefleet.pipeline.hooks.global_draws import GlobalDraws
from framefleet.pipeline.render.checkpoints import checkpoint as journals
from framefleet.pipeline.render.checkpoints.checkpoint import (
    Journal,
    Made,
    RowCheckpoint,
    checkpoint_bytes,
    read_checkpoint,
)
from framefleet.pipeline.render.fused.batcher import Batcher, RowTask
from framefleet.pipeline.render.tensor_file import METADATA
from tests.unit.denoising import Denoiser, alone, batcher_of, steps

Function = Callable[[], Any]


def _drawing(function: Function) -> Function:
    def seeded() -> Any:
        GlobalDraws().seed(5)
        return function()

    return seeded


def _after(
    batcher: Batcher, function: Function, num_forwards: int, journal: Journal | None = None
) -> RowTask:
    """Return a task that is parked at the call after so many forwards."""
    task = batcher.start(RowTask(_drawing(function), None, journal))
    for _ in range(num_forwards):
        batcher.step()
    batcher.park()
    return task


def _handed_over(task: RowTask) -> Journal:
    made, then = task.journal.until(task.call, task.draws)
    return Journal(made, then)


def _ended(batcher: Batcher, task: RowTask) -> RowTask:
    while batcher.tasks:
        batcher.step()
    return task


@pytest.mark.parametrize("num_forwards", range(5))
def test_a_task_makes_its_first_call_again_and_then_those_that_are_missing(num_forwards: int) -> None:
    denoiser = Denoiser()
    first = _after(batcher_of(denoiser), lambda: steps(denoiser, 1.0, 5), num_forwards)
    denoiser.rows.clear()
    batcher = batcher_of(denoiser)
    task = _ended(batcher, _after(batcher, lambda: steps(denoiser, 1.0, 5), 0, _handed_over(first)))
    assert task.value == alone(1.0, 5)
    assert task.journal.doubt(task.error) is None
    assert len(denoiser.rows) == 5 - num_forwards + bool(num_forwards)
    assert task.num_forwards == 5 + bool(num_forwards)


class _Scattering(nn.Module):
    """Returns a dictionary of tensors that lie otherwise than usual, and one that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, latents: Tensor) -> dict[str, Any]:
        image = (latents.reshape(1, 2, 2) * self.weight).transpose(1, 2)
        return {"image": image, "none": None, "scales": [image.mean().expand(1, 4)]}


def test_what_is_known_nests_and_lies_in_memory_as_it_did() -> None:
    network, seen = _Scattering(), []

    def recipe() -> Tensor:
        latents = torch.arange(4.0).reshape(1, 4)
        for _ in range(4):
            output = network(latents)
            seen.append((list(output), output["none"], output["image"].stride()))
            latents = output["image"].reshape(1, 4) + output["scales"][0]
        return latents

    batcher = batcher_of(network)
    expected = _ended(batcher, batcher.start(RowTask(_drawing(recipe)))).value
    first = _after(batcher_of(network), recipe, 3)
    seen.clear()
    task = _ended(batcher, _after(batcher, recipe, 0, _handed_over(first)))
    assert torch.equal(task.value, expected)
    assert len(seen) == 4 and len({str(one) for one in seen}) == 1


def test_a_pipeline_may_write_to_what_it_is_given() -> None:
    denoiser = Denoiser()

    def recipe() -> float:
        latents = torch.ones(1, 4)
        for step in range(4):
            latents = denoiser(latents, torch.tensor(float(step))).mul_(2)
        return latents[0, 0].item()

    batcher = batcher_of(denoiser)
    expected = _ended(batcher, batcher.start(RowTask(recipe))).value
    first = _after(batcher_of(denoiser), recipe, 3)
    for _ in range(2):
        assert _ended(batcher, _after(batcher, recipe, 0, _handed_over(first))).value == expected


class _Drawing(Denoiser):
    """Draws from a global generator in its forwards."""

    def forward(self, *arguments: Any) -> Tensor:
        return super().forward(*arguments) + torch.rand(())


@pytest.mark.parametrize(
    ("network", "here", "problem"),
    [
        (Denoiser, lambda d: steps(d, 2.0, 4), "unet does not return what it returned"),
        (Denoiser, lambda d: steps(d, 1.0, 1), "it ends before where it was"),
        (Denoiser, lambda d: steps(d, 1.0, 2) + steps(d, 3.0, 2), "replaying it gave a different state"),
        (Denoiser, lambda d: steps(d, 1.0, 1) / 0, "it fails on the way: float"),
        (_Drawing, lambda d: steps(d, 1.0, 4), "replaying it gave a different state"),  # forwards drew
    ],
)
def test_a_task_that_does_something_else_is_found(network: type[Denoiser], here: Any, problem: str) -> None:
    denoiser = network()
    first = _after(batcher_of(denoiser), lambda: steps(denoiser, 1.0, 4), 3)
    batcher = batcher_of(denoiser)
    task = _ended(batcher, _after(batcher, lambda: here(denoiser), 0, _handed_over(first)))
    assert (task.journal.doubt(task.error) or "").startswith(problem)


def test_tasks_that_failed_or_return_too_much_are_not_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = Denoiser()

    def stubborn() -> float:
        try:
            return steps(denoiser, 13.0)
        except ValueError:
            return steps(denoiser, 1.0)

    task = _after(batcher_of(denoiser), stubborn, 3)
    assert (task.journal.made, task.journal.obstacle) == ([], "a forward of unet failed")
    monkeypatch.setattr(journals, "MAX_KEPT_BYTES", 40)
    batcher = batcher_of(denoiser)
    task = _after(batcher, lambda: steps(denoiser, 1.0, 5), 3)
    assert task.journal.made == [] and "takes more than" in str(task.journal.obstacle)
    assert _ended(batcher, task).value == alone(1.0, 5), "it goes on itself"


def _checkpoint(**changes: Any) -> RowCheckpoint:
    tensors = torch.randn(1, 4, 2, 2), torch.zeros(0, 3, dtype=torch.bfloat16)
    known: dict[str, Any] = {
        "row_id": "a" * 32,
        "model": "b" * 64,
        "build": "c" * 64,
        "surroundings": "d" * 32,
        "made": [Made("unet", tensors, 3), Made("transformer_2", (torch.tensor(1.0),), is_again=True)],
        "then": "e" * 64,
        "seconds": {"encode_s": 0.25, "denoise_s": 3.5, "decode_s": 0.0, "compute_s": 0.0},
        "started_at": datetime(2026, 1, 2, 3, tzinfo=UTC),
        "was_batched": True,
    }
    return RowCheckpoint(**known | changes)


@pytest.mark.parametrize("then", ["e" * 64, None])
def test_a_checkpoint_is_what_was_written(then: str | None) -> None:
    written = _checkpoint(then=then)
    read = read_checkpoint(checkpoint_bytes(written))
    for name in ("row_id", "model", "build", "surroundings", "then", "seconds", "started_at", "was_batched"):
        assert getattr(read, name) == getattr(written, name)
    for one, other in zip(read.made, written.made, strict=True):
        assert (one.module, one.rows, one.is_again) == (other.module, other.rows, other.is_again)
        assert all(map(torch.equal, one.tensors, other.tensors))
    assert checkpoint_bytes(read) == checkpoint_bytes(written)
    late = _checkpoint(started_at=datetime(2999, 1, 1, tzinfo=UTC))
    assert read_checkpoint(checkpoint_bytes(late)).started_at <= datetime.now(UTC)


_SECONDS: dict[str, Any] = {"encode_s": 0.0, "denoise_s": 0.0, "decode_s": 0.0, "compute_s": 0.0}
_PLAIN: dict[str, Any] = {
    **{name: "a" for name in ("row_id", "model", "build", "surroundings", "then")},
    "calls": [],
    "seconds": _SECONDS,
    "started_at": "2026-01-02T03:04:05+00:00",
    "was_batched": False,
}


def _signed(body: Any, **tensors: Tensor) -> bytes:
    """Return a file that says this, rightly signed."""
    text = json.dumps(body)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return safetensors.torch.save(tensors, {METADATA: f"{digest} {text}"})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PAR1",
        (2**40).to_bytes(8, "little") + b"{}",
        safetensors.torch.save({"a": torch.zeros(1)}),
        safetensors.torch.save({}, {"framefleet": "no digest"}),
        _signed([]),
        _signed({name: value for name, value in _PLAIN.items() if name != "calls"}),
        _signed(_PLAIN, **{"0": torch.zeros(1)}),
        *(_signed(_PLAIN | {"calls": calls}) for calls in (3, [["unet", ["0"], 1, False]])),
        *(
            _signed(_PLAIN | {"calls": [["unet", *call, False]]})
            for call in ((10**12, 1), ([], "x"), ([], 0), ([], -9))
        ),
        *(_signed(_PLAIN | {"seconds": _SECONDS | {"encode_s": seconds}}) for seconds in (-1.0, 1e400)),
        *(_signed(_PLAIN | wrong) for wrong in ({"more": 1}, {"was_batched": 1}, {"seconds": {}})),
        *(_signed(_PLAIN | {"started_at": wrong}) for wrong in ("yesterday", 5)),
    ],
)
def test_what_is_no_checkpoint_is_a_value_error(content: bytes) -> None:
    assert read_checkpoint(_signed(_PLAIN)).made == []
    with pytest.raises(ValueError, match="it is"):
        read_checkpoint(content)


def test_every_bit_of_a_checkpoint_counts() -> None:
    content = checkpoint_bytes(_checkpoint())
    original = read_checkpoint(content)
    for place in range(8, len(content)):
        damaged = content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
        try:
            read = read_checkpoint(damaged)
        except ValueError:
            continue
        assert checkpoint_bytes(read) == checkpoint_bytes(original), "padding, or the same said otherwise"


@pytest.mark.parametrize("others", [[], ["c" * 32]], ids=["own rows", "also others"])
def test_a_complete_run_deletes_the_checkpoints_of_its_own_rows(others: list[str], tmp_path: Path) -> None:
    here, done, store = "a" * 32, "b" * 32, Store(str(tmp_path))
    for row_id in (here, done, *others):
        store.write(checkpoint_path(row_id), b"half a clip")
    rows = HalfDoneRows(store, is_whole=True)
    rows.find({here: True, done: False}.get)
    assert here in rows and done not in rows
    rows.drop([here])
    rows.close(is_complete=True)
    assert [*half_done_in(store)] == others


@pytest.mark.parametrize("are_paid", [False, True])
def test_what_an_engine_says_of_a_row_that_failed_is_kept(are_paid: bool, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write(checkpoint_path("a" * 32), b"half a clip")
    rows = HalfDoneRows(store, is_whole=True, are_paid=are_paid)
    rows.find({"a" * 32: True}.get)
    rows.failed("a" * 32)
    rows.close(is_complete=True)
    assert [*half_done_in(store)] == ["a" * 32] * are_paid


OLD, YOUNG = "a" * 32, "b" * 32
REQUEST = cast(Request, None)  # which no checkpointer looks at


class Renders:
    """In place of a renderer with two rows under way: counts how often they are saved."""

    num_saves = 0

    def save(self) -> list[HalfDone]:
        self.num_saves += 1
        return [HalfDone(row_id, REQUEST, b"half") for row_id in (OLD, YOUNG)]


class Told:
    """Notes what is told, and waits for it."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, bool, bool]] = []
        self._news = threading.Condition()

    def __call__(self, row_id: str, is_saved: bool, is_over: bool) -> None:
        with self._news:
            self.rows.append((row_id, is_saved, is_over))
            self._news.notify_all()

    def wait(self) -> None:
        with self._news:
            assert self._news.wait_for(lambda: self.rows, timeout=120)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("framefleet.cluster.worker.checkpointer.time.monotonic", lambda: now[0])
    return now


def test_a_row_is_stored_once_it_is_as_old_as_the_interval(tmp_path: Path, clock: list[float]) -> None:
    store, told, renderer = Store(str(tmp_path)), Told(), Renders()
    checkpointer = Checkpointer(store, told, every_s=10, num_threads=1)
    checkpointer.begun(OLD)
    clock[0] = 9.0
    checkpointer.begun(YOUNG)
    checkpointer.look(cast(Renderer, renderer))
    assert not renderer.num_saves
    clock[0] = 11.0
    checkpointer.look(cast(Renderer, renderer))
    checkpointer.look(cast(Renderer, renderer))
    told.wait()
    assert renderer.num_saves == 1
    assert told.rows == [(OLD, True, False)]
    assert store.read(checkpoint_path(OLD)) == checkpointer.read(OLD) == b"half"


@pytest.mark.parametrize("is_stored", [True, False])
def test_without_an_interval_a_row_is_stored_at_a_drain_and_handed_back_where_it_cannot_be(
    is_stored: bool, tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    renderer, told = Renders(), Told()
    checkpointer = Checkpointer(Store(str(tmp_path)), told, every_s=0, num_threads=1)
    checkpointer.begun(OLD)
    clock[0] = 1e6
    checkpointer.look(cast(Renderer, renderer))
    assert not renderer.num_saves
    if not is_stored:
        (tmp_path / "checkpoints").touch()  # where there should be a folder
    checkpointer.keep(HalfDone(OLD, REQUEST, b"half"), is_over=True)
    told.wait()
    assert told.rows == [(OLD, is_stored, True)]
    assert (f"row {OLD}: its checkpoint could not be written" in caplog.text) != is_stored


def test_what_a_worker_says_of_half_done_rows_is_there_for_its_driver(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    remarks = Remarks()
    remarks.listen()
    request.addfinalizer(partial(logging.getLogger("framefleet").removeHandler, remarks))
    Checkpointer(Store(str(tmp_path)), Told(), every_s=0, num_threads=1).read(OLD)
    logging.getLogger(f"{LOGGERS[0]}.hand_over").warning("rows of a kind begin again")
    logging.getLogger("framefleet.pipeline.outputs").warning("of no row, and no news")
    logging.getLogger("framefleet.pipeline.render").info("it is alone", extra={"row_id": YOUNG})
    first, second, third = remarks.take()
    assert (OLD in first.text, first.row_id, first.level) == (True, OLD, logging.WARNING)
    assert (second.text, second.row_id) == ("rows of a kind begin again", "")
    assert (third.text, third.row_id, third.level) == ("it is alone", YOUNG, logging.INFO)
    assert remarks.take() == ()
