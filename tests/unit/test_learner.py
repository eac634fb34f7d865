"""Steps of a toy task: they lower the loss, and come to the same bits wherever they were interrupted."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor, nn

from framefleet import JobError, ModelError, Store, StoreError
from framefleet.plugins.ports.crafter.scheduler import VideoCrafterDDIMScheduler
from framefleet.plugins.train.checkpoints import Checkpoints
from framefleet.plugins.train.dataset.prepared_cache import read_ahead
from framefleet.plugins.train.denoiser.objective import FlowMatching, objective_of
from framefleet.plugins.train.freezing import choose_parameters
from framefleet.plugins.train.job import TrainSettings
from framefleet.plugins.train.learner import Learner, learning_rate
from framefleet.plugins.train.reports import read_losses, write_losses
from framefleet.plugins.train.world import World
from tests.training_jobs import ToyTask, settings, toy_batches

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
    (
        "checkpoints/1/checkpoint.json",
        b'{"step": 1, "files": {"../../secret.safetensors": "0"}, "scale": {}}',
    ),
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


COGVIDEOX: dict[str, Any] = {"rescale_betas_zero_snr": True, "clip_sample": False}
DIFFUSION = {
    "epsilon": DDIMScheduler(clip_sample=False),
    "sample": DDIMScheduler(clip_sample=False, prediction_type="sample"),
    "cogvideox": CogVideoXDDIMScheduler(prediction_type="v_prediction", snr_shift_scale=1.0, **COGVIDEOX),
    "cogvideox_2b": CogVideoXDDIMScheduler(prediction_type="v_prediction", snr_shift_scale=3.0, **COGVIDEOX),
    "videocrafter": VideoCrafterDDIMScheduler(latent_scale=0.7),
    "dynamicrafter": VideoCrafterDDIMScheduler(
        latent_scale=0.7, prediction_type="v_prediction", rescale_betas_zero_snr=True
    ),
}
CLEAN = torch.linspace(-1, 1, 8).reshape(2, 1, 4)
NOISE = torch.linspace(2, -2, 8).reshape(2, 1, 4)


@pytest.mark.parametrize("name", DIFFUSION)
def test_the_scheduler_finds_the_clean_latents_from_the_target(name: str) -> None:
    scheduler = DIFFUSION[name]
    scheduler.set_timesteps(1000)
    objective = objective_of(scheduler, drawing="uniform")
    for time in (1, 300, 900):
        noised = objective.noised(CLEAN, NOISE, torch.tensor([time, time]))
        found = scheduler.step(noised.target, time, noised.sample, return_dict=False)[1]
        torch.testing.assert_close(found, CLEAN, atol=2e-3, rtol=1e-3)


def test_a_scheduler_of_sigmas_scales_to_the_same_input() -> None:
    scheduler = EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1)
    scheduler.set_timesteps(1000)
    time = scheduler.timesteps[500]
    noised = objective_of(scheduler, drawing="uniform").noised(CLEAN, NOISE, time.long().expand(2))
    own = scheduler.scale_model_input(scheduler.add_noise(CLEAN, NOISE, time.expand(2)), time)
    torch.testing.assert_close(noised.sample, own, atol=1e-5, rtol=1e-5)
    assert noised.target is NOISE


def flow(shift: float) -> list[Any]:
    return [
        FlowMatchEulerDiscreteScheduler(shift=shift),
        UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift),
    ]


@pytest.mark.parametrize("scheduler", flow(5.0))
def test_noise_levels_are_shifted_as_the_scheduler_shifts_them(scheduler: Any) -> None:
    scheduler.set_timesteps(1000)
    objective = objective_of(scheduler, drawing="uniform")
    draw, again = (torch.Generator().manual_seed(0) for _ in range(2))
    for _ in range(50):
        share = float(torch.rand((), generator=again))
        level = float(objective.draw(draw))
        assert abs(level - 5 * share / (1 + 4 * share)) < 0.02


def test_a_flow_goes_from_noise_to_data() -> None:
    scheduler = flow(1.0)[0]
    scheduler.set_timesteps(1000)
    levels = torch.tensor([0.25, 1.0])
    noised = objective_of(scheduler, drawing="uniform").noised(CLEAN, NOISE, levels)
    assert torch.equal(noised.timesteps, torch.tensor([250.0, 1000.0]))
    assert torch.equal(noised.sample[1], NOISE[1])
    torch.testing.assert_close(noised.sample - levels.view(2, 1, 1) * noised.target, CLEAN)


def test_logit_normal_levels_are_of_the_middle() -> None:
    levels = torch.linspace(1, 0, 1001)
    middling = []
    for drawing in ("uniform", "logit_normal"):
        objective = FlowMatching(levels=levels, num_timesteps=1000, drawing=drawing)
        draw = torch.Generator().manual_seed(0)
        drawn = torch.stack([objective.draw(draw) for _ in range(500)])
        middling.append(float(((drawn > 0.25) & (drawn < 0.75)).float().mean()))
    assert middling[0] < 0.55 and middling[1] > 0.67


def test_a_scheduler_that_is_not_known_is_refused() -> None:
    config = SimpleNamespace(prediction_type="score", get=lambda _: None)
    with pytest.raises(ModelError, match="prediction_type 'score'"):
        objective_of(SimpleNamespace(config=config), drawing="uniform")
