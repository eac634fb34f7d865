"""A task goes on from what its denoiser returned elsewhere; whatever is otherwise is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

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
    ("there", "here", "said"),
    [
        (lambda d: steps(d, 1.0, 4), lambda d: steps(d, 2.0, 4), "unet does not return what it returned"),
        (lambda d: steps(d, 1.0, 4), lambda d: steps(d, 1.0, 1), "it ends before where it was"),
        (
            lambda d: steps(d, 1.0, 4),
            lambda d: steps(d, 1.0, 2) + steps(d, 3.0, 2),
            "replaying it gave a different state",
        ),
        (
            lambda d: steps(d, 1.0, 4),
            lambda d: steps(d, 1.0, 1) / 0,
            "it fails on the way: float",
        ),
    ],
)
def test_a_task_that_does_something_else_is_found(there: Any, here: Any, said: str) -> None:
    denoiser = Denoiser()
    first = _after(batcher_of(denoiser), lambda: there(denoiser), 3)
    batcher = batcher_of(denoiser)
    task = _ended(batcher, _after(batcher, lambda: here(denoiser), 0, _handed_over(first)))
    assert (task.journal.doubt(task.error) or "").startswith(said)


def test_what_forwards_drew_is_missed() -> None:
    denoiser = _Drawing()
    first = _after(batcher_of(denoiser), lambda: steps(denoiser, 1.0, 4), 3)
    batcher = batcher_of(denoiser)
    task = _ended(batcher, _after(batcher, lambda: steps(denoiser, 1.0, 4), 0, _handed_over(first)))
    assert task.journal.doubt(task.error) == "replaying it gave a different state"


def test_tasks_that_failed_on_the_way_or_return_too_much_are_not_handed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    denoiser = Denoiser()

    def stubborn() -> float:
        try:
            return steps(denoiser, 13.0)
        except ValueError:
            return steps(denoiser, 1.0)

    task = _after(batcher_of(denoiser), stubborn, 3)
    assert (task.journal.made, task.journal.obstacle) == ([], "a forward of unet failed")
    monkeypatch.setattr(journals, "MAX_KEPT_BYTES", 40)
    task = _after(batcher_of(denoiser), lambda: steps(denoiser, 1.0), 3)
    assert task.journal.made == [] and "takes more than" in str(task.journal.obstacle)


def test_a_task_goes_on_where_what_it_made_could_not_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Tensor) -> Tensor:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(journals, "_copied", full)
    denoiser = Denoiser()
    batcher = batcher_of(denoiser)
    task = _after(batcher, lambda: steps(denoiser, 1.0, 5), 2)
    assert task.journal.obstacle and "could not be copied: CUDA error: out of memory" in task.journal.obstacle
    assert not task.journal.made
    assert _ended(batcher, task).value == alone(1.0, 5)


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


def test_a_row_that_came_from_the_future_started_now() -> None:
    started = datetime(2999, 1, 1, tzinfo=UTC)
    assert read_checkpoint(checkpoint_bytes(_checkpoint(started_at=started))).started_at <= datetime.now(UTC)


def _with(body: Any, tensors: dict[str, Tensor] | None = None) -> bytes:
    """Return a file that says this, rightly signed."""
    text = json.dumps(body)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return safetensors.torch.save(tensors or {}, {METADATA: f"{digest} {text}"})


_PLAIN = {
    **{name: "a" for name in ("row_id", "model", "build", "surroundings", "then")},
    "calls": [],
    "seconds": {"encode_s": 0.0, "denoise_s": 0.0, "decode_s": 0.0, "compute_s": 0.0},
    "started_at": "2026-01-02T03:04:05+00:00",
    "was_batched": False,
}


def test_the_plainest_checkpoint_is_read() -> None:
    assert read_checkpoint(_with(_PLAIN)).made == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PAR1",
        (2**40).to_bytes(8, "little") + b"{}",
        safetensors.torch.save({"a": torch.zeros(1)}),
        safetensors.torch.save({}, {"framefleet": "no digest"}),
        _with([]),
        _with(_PLAIN | {"more": 1}),
        _with({name: value for name, value in _PLAIN.items() if name != "calls"}),
        _with(_PLAIN | {"calls": 3}),
        _with(_PLAIN | {"calls": [["unet", ["0"], 1, False]]}),
        _with(_PLAIN | {"calls": [["unet", 10**12, 1, False]]}),
        _with(_PLAIN | {"calls": [["unet", [], "x", False]]}),
        _with(_PLAIN, {"0": torch.zeros(1)}),
        _with(_PLAIN | {"was_batched": 1}),
        _with(_PLAIN | {"seconds": {"encode_s": -1.0, "denoise_s": 0.0, "decode_s": 0.0, "compute_s": 0.0}}),
        _with(_PLAIN | {"seconds": {"encode_s": 1e400, "denoise_s": 0.0, "decode_s": 0.0, "compute_s": 0.0}}),
        _with(_PLAIN | {"seconds": {}}),
        _with(_PLAIN | {"started_at": "yesterday"}),
        _with(_PLAIN | {"started_at": 5}),
    ],
)
def test_what_is_no_checkpoint_is_a_value_error(content: bytes) -> None:
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
