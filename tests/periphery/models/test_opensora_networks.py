"""Open-Sora's networks and sampler give what the original ones do, from checkpoints of the original names."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo, FluxTransformer2DModel
from PIL import Image
from torch import Tensor

from framefleet.plugins.latent_tokens import unpack_latents
from framefleet.plugins.ports.opensora.autoencoder_dc_video import AutoencoderDCVideo
from framefleet.plugins.ports.opensora.conditions import named_size
from framefleet.plugins.ports.opensora.denoise import TwoScales, shifted_sigmas
from framefleet.plugins.ports.opensora.pipeline_opensora import OpenSoraPipeline, with_suffixes
from tests import goldens
from tests.goldens import close, close_after_steps
from tests.opensora import Shapes, Size, dc_shapes, transformer_shapes
from tests.opensora_outputs import FILE, kept, outputs

RELEASED = ("opensora2_hunyuan_vae", "opensora2_mmdit")
UNGUIDED = {"oscillate_text_guidance": False, "oscillate_image_guidance": False, "ramp_image_guidance": False}


def test_outputs_are_those_that_were_checked_against_the_original_networks() -> None:
    known = json.loads(FILE.read_text())
    found = {name: kept(output) for name, output in outputs().items()}
    assert found.keys() == known.keys()
    for name, values in found.items():
        assert values == pytest.approx(known[name], rel=1e-4, abs=1e-4), name


@goldens.needed
def test_the_transformer_is_the_original_one() -> None:
    given = goldens.io("opensora2_mmdit")
    assert _sizes(goldens.tensors("opensora2_mmdit")) == transformer_shapes(Size())
    transformer = FluxTransformer2DModel.from_pretrained(goldens.opensora(*RELEASED), subfolder="transformer")
    with torch.no_grad():
        found = transformer(
            hidden_states=torch.cat([given["img"], given["cond_packed"]], dim=-1),
            encoder_hidden_states=given["txt"],
            pooled_projections=given["y_vec"],
            timestep=given["timesteps"],
            img_ids=given["img_ids"][0],
            txt_ids=given["txt_ids"][0],
        ).sample
    close(found, given["out"])


@goldens.needed
def test_the_dc_autoencoder_is_the_original_one() -> None:
    given = goldens.io("opensora2_dcae")
    sizes = _sizes(goldens.tensors("opensora2_dcae"))
    assert sizes == dc_shapes([8, 8, 16, 32, 32, 32], [1] * 6, [1] * 6, latent=16)
    folder = goldens.opensora("opensora2_dcae", None)
    vae = AutoencoderDCVideo.from_pretrained(folder, subfolder="vae")
    with torch.no_grad():
        for clip in ("video", "image"):
            suffix = "_image" if clip == "image" else ""
            close(vae.encode(given[clip]).latent, given[f"enc{suffix}"])
            close(vae.decode(given[f"z{suffix}"]).sample, given[f"dec{suffix}"])


@goldens.needed
def test_the_hunyuan_autoencoder_is_the_original_one() -> None:
    given = goldens.io("opensora2_hunyuan_vae")
    vae = AutoencoderKLHunyuanVideo.from_pretrained(goldens.opensora(*RELEASED), subfolder="vae")
    scale = vae.config.scaling_factor
    with torch.no_grad():
        encoded = vae.encode(given["video"]).latent_dist
        close(encoded.parameters, given["moments"])
        close(encoded.mode() * scale, given["z_mode_scaled"])
        close(vae.decode(given["z"] / scale).sample, given["dec"])


class GivenReferences(OpenSoraPipeline):
    """The references' frames are latents already."""

    latents: list[Tensor]

    def encode_frames(self, frames: Any, height: int, width: int, generator: Any = None) -> Tensor:
        return self.latents.pop(0)[None]


@goldens.needed
@pytest.mark.parametrize(
    ("name", "num_ends", "arguments"),
    [
        ("t2v_osc", 0, {}),
        ("t2v_plain", 0, UNGUIDED),
        ("i2v_head_osc", 1, {}),
        ("i2v_loop_plain", 2, UNGUIDED),
    ],
)
def test_a_clip_is_denoised_as_by_the_original(name: str, num_ends: int, arguments: dict[str, Any]) -> None:
    given = goldens.io("opensora2_sampler")
    pipe = GivenReferences.from_pretrained(goldens.opensora(*RELEASED))
    pipe.latents = [reference for row in given["refs"] for reference in row[:num_ends]]
    image = Image.new("RGB", (48, 32))
    last: list[Tensor] = []

    def keep(pipe: Any, step: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        last[:] = [tensors["latents"]]  # before the given frames take their places
        return {}

    frames = pipe(
        prompt_embeds=given["txt"],
        pooled_prompt_embeds=given["vec"],
        negative_prompt_embeds=given["neg_txt"],
        negative_pooled_prompt_embeds=given["neg_vec"],
        latents=given["z"],
        image=image if num_ends > 0 else None,
        last_image=image if num_ends > 1 else None,
        height=32,
        width=48,
        num_frames=9,
        num_inference_steps=14,
        output_type="latent",
        callback_on_step_end=keep,
        **arguments,
    ).frames
    expected = unpack_latents(given[f"{name}_packed"], 2, given["z"].shape)
    close_after_steps(last[0], expected)
    assert torch.equal(pipe.scheduler.sigmas.double(), given["timesteps_auto"])
    if num_ends:
        mask = given[f"{name}_masks"].bool().expand_as(frames)
        assert torch.equal(frames[mask], given[f"{name}_masked_ref"][mask])


@goldens.needed
def test_noise_levels_sizes_prompts_and_oscillation_are_the_originals() -> None:
    config = goldens.config("opensora2_sampler")
    for name, sigmas in config["schedules"].items():
        steps, tokens, frames = (int(part.strip("stepqfram")) for part in name.split("_"))
        assert shifted_sigmas(steps, tokens_per_frame=tokens, num_latent_frames=frames) == sigmas
    for multiple, sizes in config["image_sizes_hw"].items():
        for name, size in sizes.items():
            assert list(named_size(*name.split("|"), multiple=int(multiple))) == size
    for text in config["prompt_suffix"]:
        prompt = text.removesuffix(" 24 FPS. 4 motion score.")
        assert with_suffixes(prompt, frame_rate=24, motion_score=4) in (text, text.replace(" 24", ". 24"))
    guidance = TwoScales(
        text=7.5, image=3.0, text_oscillates=True, image_oscillates=True, image_ramps=True, num_steps=50
    )
    scales = config["oscillation"]
    assert [guidance.text_scale(step) for step in range(len(scales))] == scales


def _sizes(tensors: dict[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
