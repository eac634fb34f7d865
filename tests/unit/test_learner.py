"""Steps of a toy task: they lower the loss, and come to the same bits wherever they were interrupted."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from framefleet import Store
from framefleet.pipeline.errors import JobError, StoreError
from framefleet.plugins.train.checkpoints import Checkpoints
from framefleet.plugins.train.dataset.prepared_cache import read_ahead
from framefleet.plugins.train.finish import read_finished
from framefleet.plugins.train.job import TrainSettings
from framefleet.plugins.train.learner import Learner, learning_rate
from framefleet.plugins.train.reports import Step, read_losses, write_losses
from framefleet.plugins.train.world import World
from tests.toy_task import ToyTask, settings, toy_batches

EVERYTHING = {"ema": 0.9, "weight_decay": 0.1, "schedule": "cosine", "warmup_steps": 2, "accumulation": 2}


def learner(task: ToyTask, **more: object) -> Learner:
    return Learner(task, settings(**more), World())


def state_after(learner: Learner, steps: range) -> dict[str, Tensor]:
    for step in steps:
        learner.learn(step, toy_batches(step, count=2))
    return {name: value.clone() for name, value in learner.state()}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_interrupted_after_any_step_the_bits_are_the_same(precision: str, tmp_path: Path) -> None:
    options = EVERYTHING | {"precision": precision}
    undisturbed = state_after(learner(ToyTask(), **options), range(8))
    for stop in (1, 5):
        checkpoints = Checkpoints(Store(str(tmp_path / str(stop))), keep=2)
        before = learner(ToyTask(), **options)
        state_after(before, range(stop))
        checkpoints.write(stop, before.state(), before.scale())
        found = checkpoints.last()
        assert found is not None
        resumed = learner(ToyTask(), **options)
        resumed.restore(checkpoints.read(found), found.scale)
        after = state_after(resumed, range(found.step, 8))
        assert after.keys() == undisturbed.keys()
        assert all(torch.equal(after[name], value) for name, value in undisturbed.items())


def test_the_loss_falls() -> None:
    trained = learner(ToyTask(), learning_rate=0.05, steps=60)
    losses = [trained.learn(step, toy_batches(step, size=32)).loss for step in range(60)]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_accumulated_batches_are_one_large_batch() -> None:
    rows = toy_batches(0, size=8)[0]
    results = []
    for batches in ([rows], [rows[:4], rows[4:]]):
        task = ToyTask(noise=0)
        trained = learner(task)
        task.net.eval()  # no dropout, and no statistics of batches
        results.append(trained.learn(0, batches))
    assert math.isclose(results[0].loss, results[1].loss, rel_tol=1e-5)
    assert math.isclose(results[0].grad_norm, results[1].grad_norm, rel_tol=1e-5)


def test_frozen_weights_keep_their_bits() -> None:
    task = ToyTask()
    task.net[0].requires_grad_(False)
    before = task.net[0].weight.clone()
    trained = learner(task)
    state_after(trained, range(3))
    assert torch.equal(task.net[0].weight, before)
    assert not any(name.startswith("weights/net.0") for name, _ in trained.state())


def test_within_result_the_weights_are_the_average() -> None:
    task = ToyTask()
    trained = learner(task, ema=0.9)
    state = state_after(trained, range(4))
    with trained.result():
        assert torch.equal(task.net[0].weight, state["average/net.0.weight"])
    assert torch.equal(task.net[0].weight, state["weights/net.0.weight"])


def test_result_leaves_the_modes_as_they_were() -> None:
    task = ToyTask()
    trained = learner(task)
    task.net[1].eval()
    with trained.result():
        assert not any(part.training for part in task.net.modules())
    assert task.net.training and task.net[2].training and not task.net[1].training


def test_a_loss_that_is_no_number_is_refused_with_the_fix() -> None:
    with pytest.raises(JobError, match=r"the loss of step 0 is nan(.|\n)*learning_rate"):
        learner(ToyTask()).learn(0, [[{"x": torch.full((4,), float("nan"))}] * 4])


def test_gradients_that_are_no_numbers_change_nothing() -> None:
    task = ToyTask()
    trained, before = learner(task), task.net[0].weight.clone()
    task.net[0].weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(JobError, match="the norm of the gradients of step 0 is nan"):
        trained.learn(0, toy_batches(0))
    assert torch.equal(task.net[0].weight, before)


def test_gradients_that_never_fit_fp16_end_the_training() -> None:
    task = ToyTask()
    trained = learner(task, precision="fp16")
    task.net[0].weight.register_hook(lambda gradient: gradient * math.inf)
    norms = []
    with pytest.raises(JobError, match=r"the norm of the gradients of step \d+ is (inf|nan)"):
        for step in range(100):
            norms.append(trained.learn(step, toy_batches(step)).grad_norm)
    assert norms == [None] * len(norms) != []


def test_gradients_that_pass_weights_of_fp16_are_scaled() -> None:
    task = ToyTask()
    assert not learner(task).scale()
    task.net.append(torch.nn.Identity()).register_parameter(
        "frozen", torch.nn.Parameter(torch.zeros(1, dtype=torch.float16), requires_grad=False)
    )
    assert learner(task).scale()


def test_a_component_without_gradient_checkpointing_is_refused() -> None:
    with pytest.raises(JobError, match=r"net \(Sequential\) has none"):
        learner(ToyTask(), gradient_checkpointing=True)


def test_old_checkpoints_go_and_half_written_ones_do_not_count(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    checkpoints = Checkpoints(store, keep=2)
    for step in (1, 2, 10):
        checkpoints.write(step, [("weights/a", torch.ones(3))], {})
    store.write("checkpoints/20/part-00001.safetensors", b"half")
    found = checkpoints.last()
    assert found is not None and found.step == 10
    checkpoints.clear()
    assert {path.split("/")[1] for path in store.list("checkpoints")} == {"2", "10"}


@pytest.mark.parametrize("content", [b"other bytes", None])
def test_a_damaged_checkpoint_is_refused_with_the_fix(content: bytes | None, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    checkpoints = Checkpoints(store, keep=2)
    checkpoints.write(1, [("weights/a", torch.ones(3))], {})
    path = "checkpoints/1/part-00001.safetensors"
    store.write(path, content) if content else store.delete(path)
    found = checkpoints.last()
    assert found is not None
    with pytest.raises(JobError, match=r"is not as framefleet wrote it(.|\n)*delete .*checkpoints/1"):
        list(checkpoints.read(found))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b'{"step": 1}',
        b'{"step": 2, "files": {}, "scale": {}}',
        b'{"step": 1, "files": {"../../secret.safetensors": "0"}, "scale": {}}',
    ],
)
def test_a_marker_that_is_nonsense_is_refused_with_the_fix(content: bytes, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("checkpoints/1/checkpoint.json", content)
    with pytest.raises(JobError, match=r"is not as framefleet wrote it(.|\n)*delete .*checkpoints/1"):
        Checkpoints(store, keep=2).last()


@pytest.mark.parametrize("content", [b"", b"3", b'{"steps": "many", "result": 1}', b'{"steps": 1}'])
def test_what_a_damaged_output_says_of_its_end_is_refused(content: bytes, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("finished.json", content)
    with pytest.raises(JobError, match=r"finished\.json is not as framefleet wrote it(.|\n)*delete "):
        read_finished(store)


def test_losses_are_read_as_they_were_written_and_no_others(tmp_path: Path) -> None:
    store, step = Store(str(tmp_path)), Step(step=0, loss=1.0, learning_rate=0.0, grad_norm=None, seconds=2)
    write_losses(store, [step])
    assert read_losses(store) == [step]
    store.write("loss.jsonl", b'{"step": 0, "loss": [1]}')
    with pytest.raises(JobError, match=r"loss\.jsonl is not as framefleet wrote it(.|\n)*delete "):
        read_losses(store)


def test_the_rate_warms_up_and_falls_to_zero() -> None:
    def rates(schedule: str) -> list[float]:
        chosen = TrainSettings(steps=6, learning_rate=1.0, warmup_steps=2, schedule=schedule)  # type: ignore[arg-type]
        return [round(learning_rate(chosen, step), 3) for step in range(7)]

    assert rates("constant") == [0.5, 1, 1, 1, 1, 1, 1]
    assert rates("linear") == [0.5, 1, 1, 0.75, 0.5, 0.25, 0]
    assert rates("cosine") == [0.5, 1, 1, 0.854, 0.5, 0.146, 0]


def test_losses_come_back_without_those_that_are_done_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert read_losses(store, before=4) == []
    trained = learner(ToyTask())
    steps = [trained.learn(step, toy_batches(step)) for step in range(3)]
    write_losses(store, steps)
    assert read_losses(store) == steps
    assert read_losses(store, before=2) == steps[:2]


def test_reading_ahead_keeps_the_order_and_raises_at_its_place() -> None:
    def load(step: int) -> int:
        if step == 3:
            raise StoreError("gone", "look")
        return step

    seen = []
    with pytest.raises(StoreError):
        for value in read_ahead(load, range(9), count=2):
            seen.append(value)
    assert seen == [0, 1, 2]
