"""Tiny Z-Image pipelines: a transformer takes its rows as lists, each with a prompt of its own length."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import ByT5Tokenizer, Qwen3Config, Qwen3Model

from tests.tinies.encoders import TEXT_WIDTH, language_model
from tests.tinies.image import image_autoencoder
from tests.tinies.table import EDIT, FILLED, IMAGE, LARGER, MASKED, Tinies, of

TRANSFORMER = {
    "in_channels": 4,
    "dim": 32,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
    "cap_feat_dim": TEXT_WIDTH,
    "axes_dims": [4, 6, 6],
    "axes_lens": [1024, 32, 32],
}
TEMPLATE = "{% for message in messages %}<{{ message['content'] }}>{% endfor %}"


def z_image() -> diffusers.DiffusionPipeline:
    encoder = Qwen3Config(**language_model(2), head_dim=16)  # it takes what comes before the last layer
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = TEMPLATE
    return diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=image_autoencoder(),
        text_encoder=Qwen3Model(encoder),
        tokenizer=tokenizer,
        transformer=diffusers.ZImageTransformer2DModel(**TRANSFORMER),
    )


def _controlled(**settings: Any) -> dict[str, Any]:
    """Return the parts, and a ControlNet, which fills tables of the transformer."""
    controlnet = diffusers.ZImageControlNetModel(
        control_layers_places=[0, 1], dim=32, n_refiner_layers=1, n_heads=2, n_kv_heads=2, **settings
    )
    return z_image().components | {"controlnet": controlnet}


TINIES: Tinies = {
    "z_image": (z_image, LARGER, ()),
    "z_image_img2img": of("ZImageImg2ImgPipeline", z_image, EDIT, "image"),
    "z_image_inpaint": of("ZImageInpaintPipeline", z_image, EDIT, *MASKED),
    "z_image_controlnet": of(
        "ZImageControlNetPipeline", lambda: _controlled(control_in_dim=4), IMAGE, "control_image"
    ),
    # It is shown latents, mask and the masked picture's latents side by side.
    "z_image_controlnet_inpaint": of(
        "ZImageControlNetInpaintPipeline", lambda: _controlled(control_in_dim=9), IMAGE, *FILLED
    ),
}
