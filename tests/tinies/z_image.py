"""A tiny Z-Image: a transformer that takes its rows as lists, each with a prompt of its own length."""

from __future__ import annotations

from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import ByT5Tokenizer, Qwen3Config, Qwen3Model

from tests.tinies.encoders import TEXT_WIDTH
from tests.tinies.image import image_autoencoder

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


def z_image() -> DiffusionPipeline:
    encoder = Qwen3Config(
        vocab_size=384,
        hidden_size=TEXT_WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,  # it takes what comes before the last
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = TEMPLATE
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=image_autoencoder(),
        text_encoder=Qwen3Model(encoder),
        tokenizer=tokenizer,
        transformer=ZImageTransformer2DModel(**TRANSFORMER),
    )
