"""Schedulers that rows name, latents of chosen steps and log-probabilities: as in a plain script."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
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
    RenderError,
    Request,
    UserError,
    load_model,
    open_output,
    step_log_prob,
)
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.model.specs.schedulers import SHORT_NAMES, SchedulerChoice, build, resolve_scheduler
from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.outputs.frames.fields import VIDEO_FIELDS
from framefleet.pipeline.outputs.frames.result import kept_in
from framefleet.pipeline.recipes.catalog import generate
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.plugins.keep.replay.replay import replay
from tests.here import render_here
from tests.jobs import job_values, write_table
from tests.long import long_but
from tests.mixed import SCHEDULERS
from tests.pictures import clip
from tests.tinies import images, modular
from tests.tiny import BUILDERS, SMALLEST, smallest_call, tiny
from tests.unaudited import unaudited
from tools.conformance.plain import plain_calls

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
    for seed, one in batched.items():
        assert one.extras.file() == alone[seed].extras.file()
        assert not one.extras.arrays["log_probs"][:-1].isnan().any()
        assert one.extras.values["kept"] == {"latents": (0, 1, -1), "log_probs": True}


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


def returns_steps(pipe: Any, request: Request) -> dict[str, Any]:
    return {**generate(pipe, request), "timesteps": torch.ones(2)}


def returns_kept(pipe: Any, request: Request) -> dict[str, Any]:
    return {**generate(pipe, request), "kept": "all of it"}


@pytest.mark.parametrize(("function", "name"), [(returns_steps, "timesteps"), (returns_kept, "kept")])
def test_what_a_recipe_returns_is_not_replaced_by_what_is_kept(
    function: Callable[..., Any], name: str
) -> None:
    recipe = Recipe(name="own", function=function)
    request = Request(arguments=SMALLEST["sd"] | {"prompt": "a fox"}, recipe="own")
    renderer = Renderer(
        load_model(tiny("sd"), dtype="fp32"), keep=KeptSteps(latents=(0,)), recipes={"own": recipe}
    )
    (failure,) = renderer.render([request])
    assert isinstance(failure, Failure)
    with pytest.raises(RenderError, match=f"have the same name: '{name}'"):
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


# Not of those whose own tests look at sizes: images, modular pipelines.
MODULAR = [name for name, builder in BUILDERS.items() if builder.__module__ == modular.__name__]
NAMES = [name for name in SMALLEST if name not in (*images.TINIES, *MODULAR)]

# One of each class, as the loops differ.
LOOPS = ("wan", "wan_i2v", "wan_v2v", "cogvideox", "cogvideox_i2v", "cogvideox_v2v", "ltx", "ltx_i2v")
LOOPS += ("hunyuan", "animatediff", "svd", "sd", "sdxl", "sd3", "flux")
# Their clips are as long as a video, a network or windows make them, as large as an image, or need tiles.
OF_THEIR_INPUTS = ("lucy", "chronoedit", "skyreels_df_v2v", "wan_animate", "framepack", "helios_pyramid")
OF_THEIR_INPUTS += ("hunyuan_1_5_i2v", "modelscope_v2v", "allegro", "latte", "kandinsky_6_sr")
# A flow that several solvers take, a loop with a scheduler of its own, and noise that is predicted.
SHORT = ("wan", "cogvideox", "sd")
# Frames in fours and one, a network's own size, the length of a video, windows, images.
SHORT_SIZES = ("wan", "cogvideox_1_5_i2v", "wan_v2v", "skyreels_df", "svd", "flux")


def latents(pipe: DiffusionPipeline, name: str, steps: int) -> torch.Tensor:
    arguments = {**smallest_call(name), "num_inference_steps": steps}
    arguments |= {"strength": 1.0} if "strength" in arguments else {}  # less would leave no step of one
    generator = torch.Generator().manual_seed(1)
    output = pipe(output_type="latent", generator=generator, **arguments)
    return output.frames if hasattr(output, "frames") else output.images


def loaded(spec: PipelineSpec, name: str) -> DiffusionPipeline:
    return spec.pipeline_class.from_pretrained(tiny(name))


@pytest.mark.filterwarnings("ignore:__array_wrap__ must:DeprecationWarning")  # of diffusers, 36,000 times
@pytest.mark.parametrize("name", long_but(LOOPS, *SHORT))
def test_every_accepted_scheduler_renders_the_same_finite_clip_twice(name: str) -> None:
    spec = inspect_model(tiny(name))
    pipe = loaded(spec, name)
    base = pipe.scheduler
    choices: dict[str, SchedulerChoice] = {}
    for short in SHORT_NAMES:
        try:
            choices[short] = resolve_scheduler(short, spec)
        except UserError:
            continue
    assert len(choices) >= 2
    for short, choice in choices.items():
        one, other = build(choice, base), build(choice, base)
        for steps in {choice.min_steps, 3}:
            pipe.scheduler = copy.deepcopy(one)  # some take longer to build than to render with
            first = latents(pipe, name, steps)
            torch.rand(1)  # noise from the process's own state would differ now
            pipe.scheduler = copy.deepcopy(other)
            assert torch.isfinite(first).all(), (short, steps)
            assert torch.equal(first, latents(pipe, name, steps)), (short, steps)


@pytest.mark.parametrize(
    "name", long_but([name for name in NAMES if name not in OF_THEIR_INPUTS], *SHORT_SIZES)
)
def test_the_size_and_frame_rules_are_what_the_pipeline_renders(name: str) -> None:
    spec = inspect_model(tiny(name))
    pipe = loaded(spec, name)
    height, width = spec.size_multiple, 2 * spec.size_multiple
    if spec.configs.get("transformer", {}).get("use_learned_positional_embeddings"):
        height = width = spec.default_height or 0  # it renders no other
    num_frames = 2 * (spec.frame_step or 1) + spec.frame_rest
    length: dict[str, Any] = {name: num_frames for name in FRAME_PARAMETERS if name in spec.parameters}
    if not length:
        videos = [name for name in ("video", "control_video") if name in spec.parameters]
        length = {name: clip(0, num_frames=num_frames) for name in videos}
    size = {"height": height, "width": width, **length}
    generator = torch.Generator().manual_seed(1)
    output = pipe(output_type="np", generator=generator, **(smallest_call(name) | size))
    if spec.kind == "video":
        clips = np.asarray(next(getattr(output, name) for name in VIDEO_FIELDS if hasattr(output, name)))
        assert clips.shape[-4:] == (num_frames, height, width, 3)
    else:
        assert output.images[0].shape == (height, width, 3)


@pytest.mark.parametrize("name", ["wan", "sd"])
def test_rows_of_different_schedulers_share_forwards_and_keep_their_bits(name: str, tmp_path: Path) -> None:
    same = {**smallest_call(name), "num_inference_steps": 4, "guidance_scale": 4.0}
    rows = [{**same, "scheduler": s, "seed": seed} for seed, s in enumerate(SCHEDULERS[name])]
    requests = [Request(arguments=same, scheduler=row["scheduler"], seed=row["seed"]) for row in rows]
    renderer = unaudited(load_model(tiny(name), dtype="fp32"))
    clips = {clip.request.seed: clip for clip in renderer.render(requests) if isinstance(clip, Clip)}
    plain = [made.frames for made in plain_calls(name, torch.float32, rows, tmp_path)]
    assert [clips[seed].frames_sha256 for seed in range(len(rows))] == plain
    assert mean(clip.batch_size for clip in clips.values()) > 1.5  # no two rows have the same
