"""VideoCrafter and DynamiCrafter against numbers that the original networks computed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTextModel, CLIPVisionModel

from framefleet.plugins.ports.crafter.convert import clip_tokenizer
from framefleet.plugins.ports.crafter.pipeline_base import clip_pixels, guide
from framefleet.plugins.ports.crafter.pipeline_videocrafter import VideoCrafterImageToVideoPipeline
from framefleet.plugins.ports.crafter.resampler import VideoCrafterImageProjector
from framefleet.plugins.ports.crafter.scheduler import VideoCrafterDDIMScheduler
from framefleet.plugins.ports.crafter.unet import VideoCrafterUNet3DModel
from tests import goldens
from tests.crafter_originals import weight
from tests.goldens import close, close_after_steps

pytestmark = goldens.needed
TEXT = 77  # tokens; those of the image stand behind them in the originals

# The checkpoints whose noise schedules are compared: denoiser, and where the scale of latents ends.
SCHEDULES = {
    "noscale": ("videocrafter2_unet", 1.0),
    "scale07": ("videocrafter2_unet", 0.7),
    "scale03fix": ("videocrafter2_unet", 0.3),  # which is that of no released model of this denoiser
    "dynamicrafter": ("dynamicrafter512_unet", 0.7),
}


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def unet(name: str) -> Any:
    return VideoCrafterUNet3DModel.from_pretrained(goldens.crafter(name), subfolder="unet").eval()


def scheduler_of(name: str) -> VideoCrafterDDIMScheduler:
    denoiser, scale = SCHEDULES[name]
    folder = goldens.crafter(denoiser, scale=scale)
    return VideoCrafterDDIMScheduler.from_pretrained(folder, subfolder="scheduler")


def predict(model: Any, latents: Tensor, t: Tensor, context: Tensor, fps: Tensor | None = None) -> Tensor:
    image = context[:, TEXT:] if context.shape[1] > TEXT else None
    return model(latents, t, context[:, :TEXT], fps, image).sample


def test_videocrafter2_predicts_as_the_original() -> None:
    given, model = goldens.io("videocrafter2_unet"), unet("videocrafter2_unet")
    x, t, context = given["x"], given["timesteps"], given["context"]
    close(predict(model, x, t, context, given["fps"]), given["out"])
    close(predict(model, x, t, context, torch.tensor(16)), given["out_fps_default16"])


def test_videocrafter1_predicts_from_an_image_as_the_original() -> None:
    given, model = goldens.io("videocrafter1_i2v512_unet"), unet("videocrafter1_i2v512_unet")
    close(predict(model, given["x"], given["timesteps"], given["context"], given["fps"]), given["out"])


def test_dynamicrafter_predicts_with_tokens_of_each_frame_and_of_all() -> None:
    given = goldens.io("dynamicrafter512_unet")
    model = unet("dynamicrafter512_unet")
    x, t = given["x"], given["timesteps"]
    close(predict(model, x, t, given["context"], given["fs"]), given["out"])
    close(predict(model, x, t, given["context"]), given["out_default_fs"])
    close(predict(model, x, t, given["context_shared16"], given["fs"]), given["out_shared16"])


def test_image_tokens_are_those_of_the_originals_projector() -> None:
    given = goldens.io("dynamicrafter_resampler")
    folder = goldens.crafter("dynamicrafter512_unet")
    model = VideoCrafterImageProjector.from_pretrained(folder, subfolder="image_projector").eval()
    assert model.config.num_frames == goldens.config("dynamicrafter_resampler")["resampler"]["video_length"]
    close(model(given["feats"]), given["tokens"])


def test_four_image_tokens_are_those_of_the_originals_other_projector() -> None:
    given, towers = goldens.io("lvdm_imageproj"), goldens.io("openclip_image_v2")
    pipe = VideoCrafterImageToVideoPipeline.from_pretrained(
        goldens.crafter("videocrafter1_i2v512_unet", pooled=True)
    )
    close(pipe.image_projector(given["pooled"]), given["tokens"])
    found = goldens.tensors("openclip_image_v2")
    norm = [found[f"visual.ln_post.{part}"] for part in ("weight", "bias")]
    pooled = torch.nn.functional.layer_norm(towers["tok_small"][:, 0], (64,), *norm)
    expected = pipe.image_projector(pooled @ weight("visual.proj", (64, 64)))
    close(pipe.image_tokens(towers["img_small"]), expected)


def test_the_autoencoder_is_the_originals() -> None:
    given = goldens.io("videocrafter_autoencoderkl")
    model = AutoencoderKL.from_pretrained(goldens.crafter("videocrafter2_unet"), subfolder="vae")
    close(model.encode(given["img"]).latent_dist.parameters, given["moments"])
    close(model.encode(given["img"]).latent_dist.mode(), given["mode"])
    close(model.decode(given["z"]).sample, given["dec"])


def test_the_text_tower_is_open_clips_up_to_the_last_block() -> None:
    given = goldens.io("openclip_text")
    model = CLIPTextModel.from_pretrained(goldens.crafter("videocrafter2_unet"), subfolder="text_encoder")
    close(model(given["ids"]).last_hidden_state, given["penultimate"])


def test_the_tokenizer_gives_the_ids_of_open_clips() -> None:
    given = json.loads((goldens.ROOT / "openclip_text" / "tokenizer.json").read_text())
    ids = clip_tokenizer()(given["prompts"], padding="max_length", truncation=True).input_ids
    assert ids == given["ids"]


def test_the_image_tower_and_its_pixels_are_open_clips() -> None:
    given, folder = goldens.io("openclip_image_v2"), goldens.crafter("dynamicrafter512_unet")
    model = CLIPVisionModel.from_pretrained(folder, subfolder="image_encoder")
    enlarged = torch.nn.functional.interpolate(given["img_big_src"], scale_factor=8, mode="nearest")
    for name, image in {"small": given["img_small"], "big": enlarged.clamp(-1, 1)}.items():
        pixels = clip_pixels(image, 224)
        close(pixels[..., ::7, ::7], given[f"pre_{name}_s7"])
        close(model(pixels).last_hidden_state, given[f"tok_{name}"])


def test_noise_schedules_and_timesteps_are_those_of_the_originals() -> None:
    for name, schedule in (("videocrafter2_ddim", "scale07"), ("dynamicrafter512_ddim", "dynamicrafter")):
        given, scheduler = goldens.io(name), scheduler_of(schedule)
        assert torch.equal(scheduler.alphas_cumprod, given["alphas_cumprod"])
        assert torch.equal(scheduler.latent_scales, given["scale_arr"])
    for steps, timesteps in goldens.config("videocrafter2_ddim")["ddim_timesteps_uniform"].items():
        uniform = VideoCrafterDDIMScheduler()
        uniform.set_timesteps(int(steps))
        assert uniform.timesteps.tolist() == timesteps[::-1]
    stored = goldens.ROOT / "dynamicrafter512_ddim" / "timesteps_uniform_trailing.json"
    for steps, timesteps in json.loads(stored.read_text()).items():
        scheduler.set_timesteps(int(steps))
        assert scheduler.timesteps.tolist() == sorted(timesteps, reverse=True)


@pytest.mark.parametrize("run", ["noscale_eta0", "scale07_eta0", "scale07_eta1", "scale03fix_eta0"])
def test_videocrafter2_takes_the_steps_of_the_original(run: str) -> None:
    given, model = goldens.io("videocrafter2_ddim"), unet("videocrafter2_unet")
    schedule, eta = run.split("_eta")
    scheduler = scheduler_of(schedule)
    scheduler.set_timesteps(5)
    x = given["xT"]
    for i, t in enumerate(scheduler.timesteps):
        parts = [predict(model, x, t, given[name], given["fps"]) for name in ("uncond", "cond")]
        noise = given["noises"][i]
        taken = scheduler.step(guide(parts, [12.0]), t, x, eta=float(eta), variance_noise=noise)
        x = taken.prev_sample
        close_after_steps(x, given[f"{run}_x_inter"][i + 1])
        close_after_steps(taken.pred_original_sample, given[f"{run}_pred_x0"][i + 1])
    close_after_steps(x, given[f"{run}_out"])


@pytest.mark.parametrize("run", ["eta0", "eta1", "multicond_eta0"])
def test_dynamicrafter_takes_the_steps_of_the_original(run: str) -> None:
    given = goldens.io("dynamicrafter512_ddim")
    model = unet("dynamicrafter512_unet")
    scheduler = scheduler_of("dynamicrafter")
    scheduler.set_timesteps(5)
    is_multi = run.startswith("multicond")
    names = ("uncontext", *(["uncontext_img"] if is_multi else []), "context")
    scales = [5.0, 7.5] if is_multi else [7.5]
    x = given["xT"]
    for i, t in enumerate(scheduler.timesteps):
        beside = torch.cat([x, given["img_cat"]], dim=1)
        parts = [predict(model, beside, t, given[name], given["fs"]) for name in names]
        guided = guide(parts, scales, rescale=0.7)
        taken = scheduler.step(guided, t, x, eta=float(run[-1]), variance_noise=given["noises"][i])
        x = taken.prev_sample
        close_after_steps(x, given[f"{run}_x_inter"][i + 1])
        if run == "eta0":
            close_after_steps(taken.pred_original_sample, given[f"{run}_pred_x0"][i + 1])
    close_after_steps(x, given[f"{run}_out"])
