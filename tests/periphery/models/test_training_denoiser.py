"""What the task `denoiser` shows a denoiser is what the plain pipeline shows it, and training works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from framefleet.pipeline.errors import JobError, ModelError, TableError
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.hooks.tree import flatten
from framefleet.plugins.latent_tokens import pack_latents, unpack_latents
from framefleet.plugins.train.denoiser.objective import latents_of
from framefleet.plugins.train.denoiser.task import DenoiserTask
from framefleet.plugins.train.freezing import choose_parameters
from framefleet.plugins.train.job import TrainSettings
from framefleet.plugins.train.learner import checkpoint_gradients
from framefleet.plugins.train.task import TrainingRow
from tests.crafter import IMAGE, MOTION, TEXT
from tests.denoiser_rows import (
    CRAFTERS,
    INDEX,
    arguments_of,
    bucket_of,
    frames_of,
    pipe_of,
    prepared,
    row_of,
    task_of,
)
from tests.long import long_but
from tests.training_jobs import descend

FAMILIES = (
    *("wan", "wan_moe", "wan_ti2v", "wan_ti2v_image", "wan_i2v", "wan_i2v_moe"),
    *("cogvideox", "cogvideox_2b", "cogvideox_1_5", "cogvideox_i2v", "cogvideox_1_5_i2v"),
    *("ltx", "ltx_i2v", "hunyuan", "opensora", "opensora_dc", "animatediff", "sd", "sdxl", "sd3", "flux"),
    *CRAFTERS,
)
# Text alone, a first frame beside it or in its place, an epsilon and a flow, a network of ours.
SHORT = ("wan", "wan_ti2v_image", "wan_i2v", "cogvideox", "ltx", "opensora", "animatediff", "sdxl", MOTION)
IMAGED = (
    *("wan_ti2v_image", "wan_i2v", "wan_i2v_moe", "cogvideox_i2v", "cogvideox_1_5_i2v", "ltx_i2v"),
    *(IMAGE, MOTION),
)
UNPROMPTED = {  # what guidance leads away from: of some pipelines it is the first call under guidance
    **{key: {"frame_rate": None, "motion_score": None} for key in ("opensora", "opensora_dc")},
    **{key: {"guidance_scale": 2.0} for key in ("sdxl", *CRAFTERS)},
}


class Left(Exception):
    """The plain pipeline reached what the test waits for."""


def plain_arguments(pipe: Any, name: str, prompt: str) -> dict[str, Any]:
    """Return what a script would call the pipeline with for the row INDEX, without guidance."""
    bucket = bucket_of(name)
    frames = [Image.fromarray(frame) for frame in frames_of(bucket, INDEX)]
    images = {"image": frames[0]} if name in IMAGED else {}
    images |= {"image": frames[0], "last_image": frames[-1]} if name == "opensora" else {}
    sizes = {"height": bucket.height, "width": bucket.width}
    sizes |= {"num_frames": bucket.num_frames} if name not in ("sd", "sdxl", "sd3", "flux") else {}
    scale = {} if name in ("flux", "hunyuan") else {"guidance_scale": 1.0}
    return {**arguments_of(name, prompt), **sizes, **images, **scale, "num_inference_steps": 2}


def first_call(pipe: Any, arguments: dict[str, Any], *, seed: int) -> tuple[list[Any], Any]:
    """Return the leaves of the plain pipeline's first denoiser call, and its scheduler."""
    found: list[Any] = []

    def reach(_: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        found.extend(flatten((args, kwargs))[0])
        raise Left

    denoiser = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    with intercept({"denoiser": denoiser}, reach), pytest.raises(Left):
        pipe(**arguments, generator=torch.Generator().manual_seed(seed))
    return found, pipe.scheduler


@pytest.mark.parametrize("name", long_but(FAMILIES, *SHORT))
def test_the_denoiser_is_called_as_the_plain_pipeline_calls_it(name: str) -> None:
    pipe = pipe_of(name)
    task = task_of(pipe, name)
    (row,) = prepared(task, name, count=1)
    shared, _ = task._bucket(bucket_of(name))
    clean, held = row["latents"], shared.clean_mask(row["latents"])
    seed = row_of(name, INDEX).seed
    draw = torch.Generator().manual_seed(seed)
    given = noise = torch.randn(clean.shape, generator=draw)
    if name.startswith("opensora"):  # packs its noise, which it draws before it draws the given frames
        given, noise = (
            None,
            packed(torch.randn(unpacked_shape(pipe, name), generator=draw.manual_seed(seed)), pipe),
        )
    elif held is not None:
        given = noise = torch.where(held, clean, noise)
    for is_dropped in (False, True):
        arguments = plain_arguments(pipe, name, "" if is_dropped else f"a ball that bounces {INDEX} times")
        if is_dropped:
            arguments |= UNPROMPTED.get(name, {})
        expected, scheduler = first_call(pipe, {**arguments, "latents": given}, seed=seed)
        time = scheduler.timesteps[0]
        sample = noise * getattr(scheduler, "init_noise_sigma", 1.0)
        if hasattr(scheduler, "scale_model_input"):
            sample = scheduler.scale_model_input(sample, time)
        leaves, _ = flatten(shared.arguments([row], [is_dropped], sample, time.reshape(1)))
        for ours, theirs in zip(leaves, expected, strict=True):
            assert is_same(ours, theirs)


FLOWS = ("wan", "wan_ti2v", "wan_ti2v_image", "wan_i2v", "ltx", "hunyuan", "opensora", "sd3", "flux")


@pytest.mark.parametrize("name", long_but(FLOWS, "wan", "wan_ti2v", "ltx", "opensora"))
def test_each_step_of_a_render_shows_the_timesteps_that_training_shows(name: str) -> None:
    pipe = pipe_of(name)
    shared, objective = task_of(pipe, name)._bucket(bucket_of(name))
    shown: list[Tensor] = []

    def watch(_: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        shown.append(flatten((args, kwargs))[0][shared.timestep])
        return original(*args, **kwargs)

    arguments = {**plain_arguments(pipe, name, "a ball"), "num_inference_steps": 7}
    with intercept({"denoiser": pipe.transformer}, watch), torch.no_grad():
        pipe(**arguments, generator=torch.Generator().manual_seed(1))
    levels = pipe.scheduler.sigmas[:-1]
    shown = shown[:: len(shown) // 7]  # Open-Sora's guidance makes three calls of a step
    assert len(shown) == len(levels) == 7
    noised = objective.noised(torch.zeros(7, 1), torch.zeros(7, 1), levels)
    for ours, theirs in zip(shared._times(noised.timesteps), shown, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours.expand_as(theirs[0]), theirs[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ("wan", "wan_ti2v"))
def test_timesteps_are_not_rounded_where_a_job_asks_for_fractions(name: str) -> None:
    times = torch.tensor([999.6667, 0.5])
    shared, _ = task_of(pipe_of(name), name)._bucket(bucket_of(name))
    assert [float(time.max()) for time in shared._times(times)] == [999, 0]
    shared, _ = task_of(pipe_of(name), name, fractional_timesteps=True)._bucket(bucket_of(name))
    assert torch.equal(torch.stack([time.max() for time in shared._times(times)]), times)


def is_same(ours: Any, theirs: Any) -> bool:
    if not isinstance(theirs, Tensor):
        return bool(ours == theirs)
    own = theirs[: len(ours)] if theirs.dim() else theirs  # of a call for both prompts, the half without
    return ours.dtype == theirs.dtype and torch.equal(ours.reshape(own.shape), own)


def unpacked_shape(pipe: Any, name: str) -> torch.Size:
    bucket = bucket_of(name)
    ratio, channels = pipe.vae_scale_factor_spatial, pipe.transformer.config.out_channels
    frames = pipe.packing.num_latent(bucket.num_frames)
    return torch.Size([1, channels, frames, bucket.height // ratio, bucket.width // ratio])


def packed(latents: Tensor, pipe: Any) -> Tensor:
    return pack_latents(latents, pipe.transformer.config.patch_size)


class Stepped(tuple[Tensor, Tensor]):
    """What a scheduler's step returns, in either form."""

    prev_sample = property(lambda self: self[0])


DECODED = (*FLOWS[:2], "cogvideox_1_5", "ltx", "hunyuan", "opensora", "animatediff", "sdxl", "flux", TEXT)


@pytest.mark.parametrize("name", long_but(DECODED, "wan", "cogvideox_1_5", "sdxl"))
def test_what_the_pipeline_decodes_is_what_its_autoencoder_encoded(name: str) -> None:
    pipe = pipe_of(name)
    frames = frames_of(bucket_of(name), 0)
    latents, encoded, decoded = latents_of(pipe, frames), [], []
    if name == "opensora":
        latents = unpack_latents(latents, pipe.transformer.config.patch_size, unpacked_shape(pipe, name))

    def encode(_: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        encoded.append(original(*args, **kwargs).latent_dist.mode())
        return original(*args, **kwargs)

    def decode(_: str, original: Callable[..., Any], z: Tensor, *args: Any, **kwargs: Any) -> Any:
        decoded.append(z)
        return original(z, *args, **kwargs)

    with intercept({"vae": pipe.vae}, encode, method="encode"):
        latents_of(pipe, frames)
    arguments = plain_arguments(pipe, name, "a ball")
    arguments = {key: value for key, value in arguments.items() if "image" not in key}
    arguments.pop("condition_type", None)
    with (
        intercept({"scheduler": pipe.scheduler}, lambda *_, **__: Stepped((latents, latents)), method="step"),
        intercept({"vae": pipe.vae}, decode, method="decode"),
    ):
        pipe(**arguments, generator=torch.Generator().manual_seed(0))
    batch_or_time = 2 if name.startswith(("wan", "cogvideox")) else 0
    torch.testing.assert_close(torch.cat(decoded, batch_or_time), torch.cat(encoded), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "name", long_but(["wan", "ltx", "cogvideox", TEXT, MOTION, "sd", "opensora"], "wan", "sd", MOTION)
)
def test_the_loss_falls(name: str) -> None:
    task = task_of(pipe_of(name), name)
    rows = prepared(task, name, count=2)
    first, *_, last = descend(task, rows, choose_parameters(task.trained).values(), steps=5)
    assert last < 0.8 * first


def test_frozen_layers_keep_their_bits() -> None:
    pipe = pipe_of("wan")
    task = task_of(pipe, "wan")
    frozen = ["transformer.blocks.0", "*.attn2.*", "transformer_2"]  # the last: a denoiser of its own
    chosen = choose_parameters(task.trained, ["transformer.blocks"], frozen)
    before = {name: weight.clone() for name, weight in pipe.transformer.state_dict().items()}
    descend(task, prepared(task, "wan"), chosen.values(), steps=2)
    changed = {
        f"transformer.{name}"
        for name, weight in pipe.transformer.state_dict().items()
        if not torch.equal(weight, before[name])
    }
    assert changed <= set(chosen) and {name.split(".")[2] for name in changed} == {"1"}
    assert not any(
        weight.requires_grad for weight in [*pipe.vae.parameters(), *pipe.text_encoder.parameters()]
    )


@pytest.mark.parametrize("name", ["ltx_i2v", "animatediff"])
def test_the_loss_of_a_batch_is_the_mean_of_its_rows(name: str) -> None:
    task = task_of(pipe_of(name), name, prompt_dropout=0.5)
    rows = prepared(task, name, count=4)
    draw = torch.Generator().manual_seed(1)
    alone = torch.stack([task.loss([row], draw) for row in rows])
    together = task.loss(rows, draw.manual_seed(1))
    torch.testing.assert_close(together, alone.mean())
    assert together.dtype == torch.float32 and together.dim() == 0


@pytest.mark.parametrize("name", ["wan", MOTION])
def test_checkpointed_gradients_are_the_same(name: str) -> None:
    gradients = []
    pipe = pipe_of(name)
    for is_on in (False, True):
        task = task_of(pipe, name)
        if is_on:
            checkpoint_gradients(name, *task.trained.values())
        task.loss(prepared(task, name, count=1), torch.Generator().manual_seed(0)).backward()
        (module,) = task.trained.values()
        gradients.append({key: w.grad.clone() for key, w in module.named_parameters() if w.grad is not None})
        module.zero_grad()
    torch.testing.assert_close(*gradients)


def test_a_row_keeps_only_what_is_its_own() -> None:
    (row,) = prepared(task_of(pipe_of("cogvideox"), "cogvideox"), "cogvideox", count=1)
    assert {key: tuple(value.shape) for key, value in row.items()} == {
        "bucket": (3,),
        "latents": (1, 3, 4, 2, 2),
        "call.1": (1, 226, 32),
        "empty.1": (0,),  # the empty prompt is the bucket's
    }


def test_what_is_drawn_for_a_row_does_not_depend_on_the_rows_before_it() -> None:
    task = task_of(pipe_of("cogvideox_i2v"), "cogvideox_i2v")
    row, frames = row_of("cogvideox_i2v", INDEX), frames_of(bucket_of("cogvideox_i2v"), INDEX)
    one, moved = task.prepare(row, frames), task.prepare(replace(row, index=INDEX - 1), frames)
    assert all(torch.equal(one[name], moved[name]) for name in one)
    other = task.prepare(replace(row, sha256="of another video"), frames)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_an_autoencoder_of_fp16_encodes_in_fp32() -> None:
    """SDXL's has activations that fp16 does not hold."""
    pipe, frames = pipe_of("sdxl"), frames_of(bucket_of("sdxl"), INDEX)
    with torch.no_grad():
        pipe.vae.encoder.conv_in.weight.mul_(1e6).clamp_(-6e4, 6e4)
        pipe.vae.half()
        weights = {name: value.clone() for name, value in pipe.vae.state_dict().items()}
        assert latents_of(pipe, frames).isfinite().all()
    assert all(torch.equal(value, weights[name]) for name, value in pipe.vae.state_dict().items())


def test_latents_that_are_not_finite_are_refused_with_the_row() -> None:
    pipe = pipe_of("sdxl")
    with torch.no_grad():
        pipe.vae.encoder.conv_in.weight.fill_(torch.inf)
    with pytest.raises(TableError, match=rf"row {INDEX}: its latents are not finite"):
        prepared(task_of(pipe, "sdxl"), "sdxl", count=1)


def test_frames_that_are_given_are_no_part_of_the_loss() -> None:
    task = task_of(pipe_of("wan_ti2v_image"), "wan_ti2v_image")
    (row,) = prepared(task, "wan_ti2v_image", count=1)
    shared, _ = task._bucket(bucket_of("wan_ti2v_image"))
    held = shared.clean_mask(row["latents"])
    assert held is not None and held[:, :, 0].all() and not held[:, :, 1:].any()


def test_of_two_denoisers_one_is_trained_on_its_own_noise() -> None:
    pipe = pipe_of("wan_moe")
    with pytest.raises(JobError, match="one job trains one denoiser"):
        DenoiserTask(pipe, TrainSettings(steps=1))
    frozen = TrainSettings(steps=1, freeze=["transformer.*"])
    assert list(DenoiserTask(pipe, frozen).trained) == ["transformer_2"]
    for name, (low, high) in {"transformer": (0.875, 1), "transformer_2": (0, 0.875)}.items():
        task = DenoiserTask(pipe, TrainSettings(steps=1, only=[name]))
        assert list(task.trained) == [name]
        _, objective = task._bucket(bucket_of("wan_moe"))
        draw = torch.Generator().manual_seed(0)
        drawn = [float(objective.draw(draw)) for _ in range(200)]
        assert low <= min(drawn) < low + 0.1 and high - 0.1 < max(drawn) <= high


def test_a_pipeline_that_is_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(ModelError, match=r"StableVideoDiffusionPipeline cannot be trained[^$]*WanPipeline"):
        DenoiserTask(pipe_of("svd"), TrainSettings(steps=1))


def test_rows_that_cannot_share_a_forward_are_refused() -> None:
    task = task_of(pipe_of("ltx"), "ltx")
    bucket = bucket_of("ltx")
    rows = [
        task.prepare(
            TrainingRow(
                index=0, video="", sha256="", arguments={"prompt": "a", "frame_rate": rate}, bucket=bucket
            ),
            frames_of(bucket, 0),
        )
        for rate in (8, 16)
    ]
    with pytest.raises(TableError, match="rope_interpolation_scale"):
        task.loss(rows, torch.Generator())
    for row in rows:
        assert task.loss([row], torch.Generator()).isfinite()


def test_an_argument_that_the_pipeline_lacks_is_refused_with_the_row() -> None:
    task = task_of(pipe_of("wan"), "wan")
    row = TrainingRow(index=7, video="", sha256="", arguments={"motion": 3}, bucket=bucket_of("wan"))
    with pytest.raises(TableError, match=r"row 7: WanPipeline has no argument 'motion'"):
        task.prepare(row, frames_of(row.bucket, 0))


def test_casts_of_a_training_step_change_the_loss_and_not_the_call() -> None:
    task, fresh = (task_of(pipe_of("wan"), "wan") for _ in range(2))
    rows = prepared(task, "wan", count=1)
    losses = []
    for trained in (task, fresh):  # the second makes what rows share in the middle of a step
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(trained.loss(rows, torch.Generator().manual_seed(0)))
    assert losses[0].dtype == torch.float32 and torch.equal(*losses)
    assert not torch.equal(losses[0], task.loss(rows, torch.Generator().manual_seed(0)))
