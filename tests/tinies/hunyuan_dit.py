"""Tiny Hunyuan-DiT: plain, with a ControlNet, and with perturbed attention."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import BertConfig, BertModel, ByT5Tokenizer

from tests.tinies.encoders import TEXT_WIDTH, t5
from tests.tinies.image import image_autoencoder
from tests.tinies.image_edits import UNSAFE
from tests.tinies.table import HEADS, LARGER, Tinies, of

_ANY_SIZE = LARGER | {"use_resolution_binning": False}


def _parts() -> dict[str, Any]:
    transformer = diffusers.HunyuanDiT2DModel(
        sample_size=4,
        patch_size=2,
        in_channels=4,
        num_layers=4,
        **HEADS,
        hidden_size=32,
        cross_attention_dim=TEXT_WIDTH,
        cross_attention_dim_t5=TEXT_WIDTH,
    )
    encoder = BertConfig(
        vocab_size=384,
        hidden_size=TEXT_WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    return {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": BertModel(encoder),
        "tokenizer_2": ByT5Tokenizer(),
        "text_encoder_2": t5(),
        "vae": image_autoencoder(),
        "transformer": transformer,
        "scheduler": diffusers.DDPMScheduler(beta_end=0.02, beta_schedule="scaled_linear"),
        **UNSAFE,
    }


def _controlled() -> dict[str, Any]:
    given = _parts()
    network = diffusers.HunyuanDiT2DControlNetModel.from_transformer(
        given["transformer"], transformer_num_layers=4
    )
    return given | {"controlnet": network}


TINIES: Tinies = {
    "hunyuan_dit": of("HunyuanDiTPipeline", _parts, _ANY_SIZE),
    "hunyuan_dit_controlnet": of("HunyuanDiTControlNetPipeline", _controlled, _ANY_SIZE, "control_image"),
    "hunyuan_dit_pag": (
        lambda: diffusers.HunyuanDiTPAGPipeline(**_parts(), pag_applied_layers="blocks.1"),
        _ANY_SIZE,
        (),
    ),
}
