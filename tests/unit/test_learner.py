"""Steps of a toy task: they lower the loss, and come to the same bits wherever they were interrupted."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from framefleet import JobError, Store, StoreError
from framefleet.plugins.train.checkpoints import Checkpoints
from framefleet.plugins.train.dataset.prepared_cache import read_ahead
from framefleet.plugins.train.finish import read_finished
from framefleet.plugins.train.freezing import choose_parameters
from framefleet.plugins.train.job import TrainSettings
from framefleet.plugins.train.learner import Learner, learning_rate
from framefleet.plugins.train.reports import read_losses, write_losses
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


def test_within_result_the_weights_are_the_average_and_modes_and_frozen_weights_stay() -> None:
    task = ToyTask()
    task.net[2].requires_grad_(False)
    frozen = {name: weight.clone() for name, weight in task.net[2].state_dict().items()}
    trained = learner(task, ema=0.9)
    state = state_after(trained, range(4))
    task.net[1].eval()
    with trained.result():
        assert torch.equal(task.net[0].weight, state["average/net.0.weight"])
        assert not any(part.training for part in task.net.modules())
    assert torch.equal(task.net[0].weight, state["weights/net.0.weight"])
    assert task.net.training and task.net[2].training and not task.net[1].training
    assert all(torch.equal(weight, frozen[name]) for name, weight in task.net[2].state_dict().items())
    assert not any(name.startswith("weights/net.2") for name in state)


def test_losses_and_gradients_that_are_no_numbers_are_refused_and_change_nothing() -> None:
    task = ToyTask()
    with pytest.raises(JobError, match=r"net \(Sequential\) has none"):
        learner(task, gradient_checkpointing=True)
    trained, before = learner(task), task.net[0].weight.clone()
    with pytest.raises(JobError, match=r"the loss of step 0 is nan(.|\n)*learning_rate"):
        trained.learn(0, [[{"x": torch.full((4,), float("nan"))}] * 4])
    task.net[0].weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(JobError, match="the norm of the gradients of step 0 is nan"):
        trained.learn(0, toy_batches(0))
    assert torch.equal(task.net[0].weight, before)


def test_gradients_of_fp16_are_scaled_and_those_that_never_fit_end_the_training() -> None:
    task = ToyTask()
    assert not learner(task).scale()
    trained = learner(task, precision="fp16")
    task.net[0].weight.register_hook(lambda gradient: gradient * math.inf)
    norms = []
    with pytest.raises(JobError, match=r"the norm of the gradients of step \d+ is (inf|nan)"):
        for step in range(100):
            norms.append(trained.learn(step, toy_batches(step)).grad_norm)
    assert norms == [None] * len(norms) != []
    half = nn.Parameter(torch.zeros(1, dtype=torch.float16), requires_grad=False)
    task.net.append(nn.Identity()).register_parameter("frozen", half)
    assert learner(task).scale(), "its gradients pass weights of fp16"


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


NO_FILE = "checkpoints/1/part-00001.safetensors"
DAMAGE = [
    *((NO_FILE, content) for content in (b"other bytes", None)),
    *(("checkpoints/1/checkpoint.json", content) for content in (b"", b"null", b"[" * 100_000)),
    ("checkpoints/1/checkpoint.json", b'{"step": 1}'),
    ("checkpoints/1/checkpoint.json", b'{"step": 2, "files": {}, "scale": {}}'),
    (
        "checkpoints/1/checkpoint.json",
        b'{"step": 1, "files": {"../../secret.safetensors": "0"}, "scale": {}}',
    ),
    *(
        ("finished.json", content)
        for content in (b"", b"3", b'{"steps": "many", "result": 1}', b'{"steps": 1}')
    ),
    ("loss.jsonl", b'{"step": 0, "loss": [1]}'),
]


@pytest.mark.parametrize(("path", "content"), DAMAGE)
def test_a_damaged_file_is_refused_with_the_fix(path: str, content: bytes | None, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    checkpoints = Checkpoints(store, keep=2)
    checkpoints.write(1, [("weights/a", torch.ones(3))], {})
    store.delete(path) if content is None else store.write(path, content)
    with pytest.raises(JobError, match=r"is not as framefleet wrote it(.|\n)*delete ") as caught:
        found = checkpoints.last()
        assert found is not None
        list(checkpoints.read(found))
        read_finished(store)
        read_losses(store)
    assert path in str(caught.value) or "checkpoints/1" in caught.value.fix


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


def two_modules() -> dict[str, nn.Module]:
    block = nn.ModuleDict({"to_q": nn.Linear(2, 2), "norm": nn.LayerNorm(2)})
    return {"transformer": nn.ModuleDict({"blocks": nn.ModuleList([block]), "proj_out": nn.Linear(2, 2)})}


def test_a_pattern_stands_for_all_below_it() -> None:
    modules = two_modules()
    assert list(choose_parameters(modules, ["transformer.blocks.0"], ["*.bias"])) == [
        "transformer.blocks.0.to_q.weight",
        "transformer.blocks.0.norm.weight",
    ]
    frozen = [key for key, w in modules["transformer"].named_parameters() if not w.requires_grad]
    assert frozen == ["blocks.0.to_q.bias", "blocks.0.norm.bias", "proj_out.weight", "proj_out.bias"]


def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest_names_and_so_is_freezing_all() -> None:
    chosen = choose_parameters(two_modules())
    assert len(chosen) == 6 and all(weight.requires_grad for weight in chosen.values())
    for setting in ("only", "freeze"):
        problem = rf"train.{setting}: 'transformer.block.\*'[^$]*transformer.blocks,"
        with pytest.raises(JobError, match=problem):
            choose_parameters(two_modules(), **{setting: ["transformer.block.*"]})
    with pytest.raises(JobError, match="no weights are left"):
        choose_parameters(two_modules(), freeze=["*"])
