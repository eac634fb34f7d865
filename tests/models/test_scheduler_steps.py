"""Latents of chosen steps and log-probabilities of stochastic ones: those of a plain script, in any batch."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionPipeline,
)
from torch import Tensor

from framefleet import (
    Audit,
    Batching,
    Clip,
    Failure,
    KeptSteps,
    Model,
    Renderer,
    Request,
    load_model,
    open_output,
    step_log_prob,
)
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.frames.result import kept_in
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.plugins.keep.replay.replay import replay
from tests.here import render_here
from tests.jobs import job_values, write_table
from tests.tiny import SMALLEST, tiny

KEEP = KeptSteps(latents=(0, 1, -1), log_probs=True)
DDIM = {"scheduler": "ddim", "eta": 1.0}
SDE = {"scheduler": "flow_euler(stochastic_sampling=true)"}


def requests(model: str, scheduler: str, **arguments: Any) -> list[Request]:
    return [
        Request(
            arguments=SMALLEST[model] | arguments | {"prompt": f"row {n}", "num_inference_steps": 3 + n % 2},
            seed=n,
            scheduler=scheduler,
        )
        for n in range(4)
    ]


def rendered(model: Model, asked: list[Request], keep: KeptSteps, *, max_rows: int = 4) -> dict[int, Clip]:
    renderer = Renderer(model, Batching(max_rows=max_rows, min_gain=0), keep=keep, audit=Audit(every=1))
    clips = [clip for clip in renderer.render(asked) if isinstance(clip, Clip)]
    assert len(clips) == len(asked)
    assert all(audited.verdict == "equal" for audited in renderer.take_audits())
    return {clip.request.seed: clip for clip in clips}


def ddim_script(model: Model, request: Request) -> dict[str, Tensor]:
    """What DDPO computes (Black et al. 2023, equation 3 over DDIM's equation 16), in a plain script."""
    pipe = model.pipe
    scheduler = pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    found: dict[str, Any] = {"samples": [], "log_probs": []}
    step = scheduler.step

    @functools.wraps(step)  # pipelines look at its parameters
    def noted(noise_pred: Tensor, t: Any, sample: Tensor, eta: float = 0.0, **more: Any) -> Any:
        result = step(noise_pred, t, sample, eta=eta, **more)
        before = int(t) - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
        std = eta * scheduler._get_variance(int(t), before).double() ** 0.5
        alpha = scheduler.alphas_cumprod[int(t)].double()
        alpha_before = (
            scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod
        ).double()
        x0 = (sample.double() - (1 - alpha) ** 0.5 * noise_pred.double()) / alpha**0.5
        if scheduler.config.clip_sample:
            x0 = x0.clamp(-scheduler.config.clip_sample_range, scheduler.config.clip_sample_range)
        mean = alpha_before**0.5 * x0 + (1 - alpha_before - std**2) ** 0.5 * noise_pred.double()
        density = -((result[0].double() - mean) ** 2) / (2 * std**2) - std.log() - 0.5 * math.log(2 * math.pi)
        found["log_probs"].append(density.mean() if std > 0 else torch.tensor(math.nan))
        found["samples"] += [result[0]] if found["samples"] else [sample, result[0]]
        return result

    scheduler.step = noted
    pipe(**request.arguments, generator=request.generator(), output_type="latent")
    return {"samples": found["samples"], "log_probs": torch.stack(found["log_probs"])}


def test_rows_of_ddim_keep_what_a_plain_script_computes_in_any_batch() -> None:
    model = load_model(tiny("sd"), dtype="fp32")
    asked = requests("sd", "ddim", eta=1.0)
    batched, alone = rendered(model, asked, KEEP), rendered(model, asked, KEEP, max_rows=1)
    without = rendered(model, asked, KeptSteps())
    assert max(clip.batch_size for clip in batched.values()) > 1
    for request in asked:
        clip = batched[request.seed]
        assert clip.extras.file() == alone[request.seed].extras.file(), "bit for bit"
        same = without[request.seed]
        assert (clip.row_id, clip.frames_sha256) == (same.row_id, same.frames_sha256)
        script, kept = ddim_script(model, request), clip.extras.arrays
        samples = script["samples"]
        assert torch.equal(kept["latents.0"], samples[0]) and torch.equal(kept["latents.1"], samples[1])
        assert torch.equal(kept["latents.-1"], samples[-1])
        assert len(kept["timesteps"]) == len(kept["log_probs"]) == request.arguments["num_inference_steps"]
        assert torch.allclose(kept["log_probs"], script["log_probs"].double(), rtol=1e-4, equal_nan=True)
        assert kept["log_probs"].isnan().sum() <= 1, "of the last step, which adds no noise"


def test_rows_of_a_flow_matching_sde_are_kept_bit_for_bit_too() -> None:
    model = load_model(tiny("wan"), dtype="fp32")
    asked = requests("wan", SDE["scheduler"])
    batched, alone = (rendered(model, asked, KEEP, max_rows=n) for n in (4, 1))
    assert max(clip.batch_size for clip in batched.values()) > 1
    for seed, clip in batched.items():
        assert clip.extras.file() == alone[seed].extras.file()
        assert not clip.extras.arrays["log_probs"][:-1].isnan().any()
        assert clip.extras.values["kept"] == {"latents": (0, 1, -1), "log_probs": True}


def test_gradients_reach_the_prediction_and_the_scheduler_stays_as_it_is() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)
    scheduler.set_timesteps(4)
    sample, prediction = torch.randn(2, 3, 4), torch.randn(2, 3, 4, requires_grad=True)
    t = scheduler.timesteps[1]
    sigma = scheduler.sigmas[2].double()
    before = (torch.get_rng_state().tolist(), scheduler.step_index)
    log_prob = step_log_prob(scheduler, sample / 2, prediction, t, sample)
    assert before == (torch.get_rng_state().tolist(), scheduler.step_index)
    mean = (1 - sigma) * (sample.double() - scheduler.sigmas[1].double() * prediction.double())
    by_hand = torch.distributions.Normal(mean, sigma).log_prob(sample.double() / 2).mean(dim=(1, 2))
    assert torch.allclose(log_prob, by_hand, rtol=1e-5)
    (gradient,) = torch.autograd.grad(log_prob.sum(), prediction)
    (expected,) = torch.autograd.grad(by_hand.sum(), prediction)
    assert torch.allclose(gradient, expected, rtol=1e-4)
    halves = [one.bfloat16() for one in (sample / 2, prediction.detach(), sample)]
    half = step_log_prob(scheduler, halves[0], halves[1], t, halves[2])
    assert torch.allclose(half, log_prob.detach(), rtol=0.05), "computed in float32"


@pytest.mark.parametrize(
    ("model", "keep", "scheduler", "said"),
    [
        ("wan", KeptSteps(log_probs=True), None, "adds no noise in any step of this row"),
        ("sd", KeptSteps(log_probs=True), "ddim", "DDIMScheduler adds no noise"),
        ("sd", KeptSteps(latents=(7,)), None, r"there is no step 7 of a row with \d steps"),
    ],
)
def test_what_cannot_be_kept_fails_the_row_with_the_fix(
    model: str, keep: KeptSteps, scheduler: str | None, said: str
) -> None:
    loaded = load_model(tiny(model), dtype="fp32")
    request = Request(
        arguments=SMALLEST[model] | {"prompt": "a fox", "num_inference_steps": 2}, scheduler=scheduler
    )
    (failure,) = Renderer(loaded, keep=keep).render([request])
    assert isinstance(failure, Failure)
    with pytest.raises(type(failure.error), match=said):
        raise failure.error


@pytest.mark.parametrize(
    ("model", "keep", "row", "said"),
    [
        ("wan", {"log_probs": True}, {}, "UniPCMultistepScheduler adds no noise in any step"),
        ("wan", {"log_probs": True}, SDE, None),
        ("wan", {"latents": [0]}, {}, None),
        ("sd", {"log_probs": True}, {"scheduler": "ddim"}, "DDIMScheduler adds no noise in any step"),
        ("sd", {"log_probs": True}, DDIM, None),
        ("sd", {"log_probs": True}, {"scheduler": "euler_a"}, None),
        ("sd", {"log_probs": True}, {"scheduler": "dpmpp_2m_sde"}, None),
        ("sd", {"log_probs": True}, {"scheduler": "lcm"}, None),
        ("sd", {"sigmas": True}, {"scheduler": "ddim"}, "DDIMScheduler has none"),
        ("sd", {"sigmas": True, "text_embeddings": True}, {"scheduler": "euler"}, None),
        ("dit", {"text_embeddings": True}, {}, "DiTPipeline has no encode_prompt"),
    ],
)
def test_a_plan_refuses_rows_of_which_nothing_can_be_kept(
    model: str, keep: dict[str, Any], row: dict[str, Any], said: str | None, tmp_path: Path
) -> None:
    table = write_table(tmp_path / "t.parquet", [{"prompt": "a fox"} | row])
    values = job_values(table, tmp_path / "out", model=model) | {"defaults": SMALLEST[model], "keep": keep}
    resolved = resolve_job(load_job(values), Callback())
    ((first, batch),) = resolved.table.batches()
    (found,) = resolved.first.plan.rows(first, batch)
    problems = [problem for problem, _ in found.messages()] if isinstance(found, InvalidRow) else []
    assert bool(problems) == bool(said) and all(said in problem for problem in problems if said)


def test_sigmas_and_embeddings_are_those_of_a_plain_call(tmp_path: Path) -> None:
    model = load_model(tiny("sd"))
    asked = requests("sd", "euler")
    clips = rendered(model, asked, KeptSteps(sigmas=True, text_embeddings=True))
    for request in asked:
        pipe = StableDiffusionPipeline.from_pretrained(tiny("sd"))
        scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
        scheduler.set_timesteps(request.arguments["num_inference_steps"])
        embeddings = pipe.encode_prompt(request.arguments["prompt"], "cpu", 1, True)
        arrays = clips[request.seed].extras.arrays
        assert sorted(arrays) == ["sigmas", "text_embeddings.0.0", "text_embeddings.0.1", "timesteps"]
        assert torch.equal(arrays["sigmas"], scheduler.sigmas)
        for place, embedding in enumerate(embeddings):
            assert torch.equal(arrays[f"text_embeddings.0.{place}"], embedding)


def test_a_job_stores_them_and_replays_them(tmp_path: Path) -> None:
    rows = [{"prompt": "a fox", "seed": n, "num_inference_steps": 3} | DDIM for n in range(2)]
    values = job_values(write_table(tmp_path / "t.parquet", rows), tmp_path / "out", model="sd")
    values |= {"defaults": SMALLEST["sd"], "keep": {"latents": "all", "log_probs": True}}
    place, (row_id, _) = render_here(values)
    output = open_output(place)
    (record,) = [row for table in output.records() for row in table.to_pylist() if row["row_id"] == row_id]
    assert kept_in(record["extra_outputs"]) == KeptSteps(latents="all", log_probs=True)
    kept = output.extras(record)
    assert sorted(kept) == ["latents.0", "latents.1", "latents.2", "latents.3", "log_probs", "timesteps"]
    assert replay(place, row_id).is_equal
    assert kept_in('{"kept": {"latents": "some"}}') == kept_in("[") == kept_in(None) == KeptSteps()
    assert replace(KEEP, latents=())
