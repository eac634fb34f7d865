"""VideoCrafter and DynamiCrafter against numbers that the original networks computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.embeddings import ImageProjection
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

from framefleet.pipeline.conversion.checkpoint import Checkpoint
from framefleet.pipeline.conversion.convert import plan
from framefleet.pipeline.conversion.plan import check
from framefleet.pipeline.models.crafter import encoder_keys as keys
from framefleet.pipeline.models.crafter.clip_image import clip_pixels
from framefleet.pipeline.models.crafter.pipeline_base import guide
from framefleet.pipeline.models.crafter.resampler import VideoCrafterImageProjector
from framefleet.pipeline.models.crafter.scheduler import VideoCrafterDDIMScheduler
from framefleet.pipeline.models.crafter.tokenizer import clip_tokenizer
from framefleet.pipeline.models.crafter.unet import VideoCrafterUNet3DModel
from framefleet.pipeline.models.crafter.unet_keys import unet_config, unet_origins
from framefleet.pipeline.models.crafter.variants import VARIANTS
from tests import goldens
from tests.goldens import close, close_after_steps, converted

pytestmark = goldens.needed
TEXT = 77  # tokens; those of the image stand behind them in the originals

FULL = {
    "videocrafter_inference_t2v_512_v2.0": "videocrafter2-t2v-512",
    "videocrafter_inference_t2v_1024_v1.0": "videocrafter1-t2v-1024",
    "videocrafter_inference_t2v_512_v1.0": "videocrafter1-t2v-512",
    "videocrafter_inference_i2v_512_v1.0": "videocrafter1-i2v-512",
    "dynamicrafter_256": "dynamicrafter-256",
    "dynamicrafter_512": "dynamicrafter-512",
    "dynamicrafter_1024": "dynamicrafter-1024",
}
SCHEDULES = {
    "noscale": {},
    "scale07": {"latent_scale": 0.7},
    "scale03fix": {"latent_scale": 0.3},
    "dynamicrafter": next(v.scheduler for v in VARIANTS if v.name == "dynamicrafter-512"),
}


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def unet(name: str, folder: Path, *, default_fps: int = 16) -> Any:
    found = goldens.tensors(name)
    arguments = unet_config(goldens.shapes(name), default_fps=default_fps)
    return converted(VideoCrafterUNet3DModel, arguments, unet_origins(found), found, folder)


def predict(model: Any, latents: Tensor, t: Tensor, context: Tensor, fps: Tensor | None = None) -> Tensor:
    image = context[:, TEXT:] if context.shape[1] > TEXT else None
    predicted: Tensor = model(latents, t, context[:, :TEXT], fps, image).sample
    return predicted


def test_videocrafter2_predicts_as_the_original(tmp_path: Path) -> None:
    given, model = goldens.io("videocrafter2_unet"), unet("videocrafter2_unet", tmp_path)
    x, t, context = given["x"], given["timesteps"], given["context"]
    close(predict(model, x, t, context, given["fps"]), given["out"])
    close(predict(model, x, t, context), given["out_fps_default16"])


def test_videocrafter1_predicts_from_an_image_as_the_original(tmp_path: Path) -> None:
    given, model = goldens.io("videocrafter1_i2v512_unet"), unet("videocrafter1_i2v512_unet", tmp_path)
    close(predict(model, given["x"], given["timesteps"], given["context"], given["fps"]), given["out"])


def test_dynamicrafter_predicts_with_tokens_of_each_frame_and_of_all(tmp_path: Path) -> None:
    given = goldens.io("dynamicrafter512_unet")
    model = unet("dynamicrafter512_unet", tmp_path, default_fps=24)
    x, t = given["x"], given["timesteps"]
    close(predict(model, x, t, given["context"], given["fs"]), given["out"])
    close(predict(model, x, t, given["context"]), given["out_default_fs"])
    close(predict(model, x, t, given["context_shared16"], given["fs"]), given["out_shared16"])


def test_image_tokens_are_those_of_the_originals_projectors(tmp_path: Path) -> None:
    given, found = goldens.io("dynamicrafter_resampler"), goldens.tensors("dynamicrafter_resampler")
    size = goldens.config("dynamicrafter_resampler")["resampler"]
    arguments = keys.projector_config(found, num_frames=size["video_length"], head_dim=size["dim_head"])
    origins = keys.projector_origins(found)
    model = converted(VideoCrafterImageProjector, arguments, origins, found, tmp_path)
    close(model(given["feats"]), given["tokens"])


def test_diffusers_image_projection_is_the_originals_projector_of_four_tokens() -> None:
    given, found = goldens.io("lvdm_imageproj"), goldens.tensors("lvdm_imageproj")
    model = ImageProjection(image_embed_dim=64, cross_attention_dim=48, num_image_text_embeds=4)
    model.load_state_dict({name.replace("proj.", "image_embeds."): t for name, t in found.items()})
    close(model(given["pooled"]), given["tokens"])


def test_the_autoencoder_is_the_originals(tmp_path: Path) -> None:
    given, found = goldens.io("videocrafter_autoencoderkl"), goldens.tensors("videocrafter_autoencoderkl")
    origins = keys.vae_origins(found)
    model = converted(AutoencoderKL, keys.vae_config(found), origins, found, tmp_path)
    close(model.encode(given["img"]).latent_dist.parameters, given["moments"])
    close(model.encode(given["img"]).latent_dist.mode(), given["mode"])
    close(model.decode(given["z"]).sample, given["dec"])


def test_the_text_tower_is_open_clips_up_to_the_last_block(tmp_path: Path) -> None:
    given, found = goldens.io("openclip_text"), goldens.tensors("openclip_text")
    tower = {name: tensor for name, tensor in found.items() if not name.startswith("visual.")}
    width, heads = (goldens.config("openclip_text")["text_cfg"][name] for name in ("width", "heads"))
    arguments = CLIPTextConfig(**keys.text_config(tower, head_dim=width // heads))
    model = converted(CLIPTextModel, arguments, keys.text_origins(tower), found, tmp_path)
    close(model(given["ids"]).last_hidden_state, given["penultimate"])


def test_the_tokenizer_gives_the_ids_of_open_clips() -> None:
    given = json.loads((goldens.ROOT / "openclip_text" / "tokenizer.json").read_text())
    ids = clip_tokenizer()(given["prompts"], padding="max_length", truncation=True).input_ids
    assert ids == given["ids"]


def test_the_image_tower_and_its_pixels_are_open_clips(tmp_path: Path) -> None:
    given, found = goldens.io("openclip_image_v2"), goldens.tensors("openclip_image_v2")
    tower = {n.removeprefix("visual."): t for n, t in found.items() if n.startswith("visual.")}
    head_dim = goldens.config("openclip_image_v2")["vision_cfg"]["head_width"]
    arguments = CLIPVisionConfig(**keys.vision_config(tower, head_dim=head_dim))
    model = converted(CLIPVisionModel, arguments, keys.vision_origins(tower), tower, tmp_path)
    enlarged = torch.nn.functional.interpolate(given["img_big_src"], scale_factor=8, mode="nearest")
    for name, image in {"small": given["img_small"], "big": enlarged.clamp(-1, 1)}.items():
        pixels = clip_pixels(image, 224)
        close(pixels[..., ::7, ::7], given[f"pre_{name}_s7"])
        close(model(pixels).last_hidden_state, given[f"tok_{name}"])


def test_noise_schedules_and_timesteps_are_those_of_the_originals() -> None:
    for name, schedule in (("videocrafter2_ddim", "scale07"), ("dynamicrafter512_ddim", "dynamicrafter")):
        given, scheduler = goldens.io(name), VideoCrafterDDIMScheduler(**SCHEDULES[schedule])
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
def test_videocrafter2_takes_the_steps_of_the_original(run: str, tmp_path: Path) -> None:
    given, model = goldens.io("videocrafter2_ddim"), unet("videocrafter2_unet", tmp_path)
    schedule, eta = run.split("_eta")
    scheduler = VideoCrafterDDIMScheduler(**SCHEDULES[schedule])
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
def test_dynamicrafter_takes_the_steps_of_the_original(run: str, tmp_path: Path) -> None:
    given = goldens.io("dynamicrafter512_ddim")
    model = unet("dynamicrafter512_unet", tmp_path, default_fps=24)
    scheduler = VideoCrafterDDIMScheduler(**SCHEDULES["dynamicrafter"])
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


@pytest.mark.parametrize("name", list(FULL))
def test_every_tensor_of_a_full_size_checkpoint_finds_its_place(name: str) -> None:
    shapes = goldens.full_keys(name) | goldens.full_keys("openclip_vit_h_14")
    if "i2v" in name:  # whose list leaves the projector out: that of DynamiCrafter, of one frame
        other = goldens.full_keys("dynamicrafter_512")
        shapes |= {key: shape for key, shape in other.items() if key.startswith("image_proj_model.")}
        shapes["image_proj_model.latents"] = shapes["image_proj_model.latents"][:, :16]
    elif "t2v" in name:
        shapes = {key: shape for key, shape in shapes.items() if not key.startswith("embedder.")}
    checkpoint = Checkpoint(path=Path(name), shapes=shapes, read=shapes.__getitem__)
    conversion = plan(checkpoint, variant=FULL[name])
    check(conversion, checkpoint)
    assert conversion.variant == FULL[name]
    num_parameters = sum(p.numel() for n in conversion.networks.values() for p in n.module.parameters())
    assert num_parameters > 1.4e9
