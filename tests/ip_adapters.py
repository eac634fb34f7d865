"""A tiny IP-adapter with its image encoder, as they lie on the hub, and the plain pipeline with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from framefleet.pipeline.model.specs.spec import inspect_model
from tests.random_weights import fill_weights
from tests.tiny import tiny

WEIGHTS, ENCODER = "models/ip-adapter.safetensors", "models/image_encoder"
_TOKENS, _EMBEDDING = 4, 16


def save_ip_adapter(folder: Path, *, model: str = "sd", seed: int = 0) -> dict[str, Any]:
    """Save one for a tiny U-Net; return what a job says about it below `model.ip_adapter`."""
    unet = inspect_model(tiny(model)).pipeline_class.from_pretrained(tiny(model)).unet
    width = unet.config.cross_attention_dim
    proj, norm = nn.Linear(_EMBEDDING, _TOKENS * width), nn.LayerNorm(width)
    fill_weights(proj, seed=seed)
    tensors = {f"image_proj.proj.{name}": value for name, value in proj.state_dict().items()}
    tensors |= {f"image_proj.norm.{name}": value for name, value in norm.state_dict().items()}
    for at, name in enumerate(name for name in unet.attn_processors if "motion_modules" not in name):
        if name.endswith("attn2.processor"):
            module = unet.get_submodule(name.removesuffix(".processor"))
            own = IPAdapterAttnProcessor2_0(module.inner_dim, width, num_tokens=(_TOKENS,))
            fill_weights(own, seed=seed + at)
            key = f"ip_adapter.{at}"
            tensors |= {
                f"{key}.to_k_ip.weight": own.to_k_ip[0].weight,
                f"{key}.to_v_ip.weight": own.to_v_ip[0].weight,
            }
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        projection_dim=_EMBEDDING,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    encoder = CLIPVisionModelWithProjection(config)
    fill_weights(encoder, seed=seed + 100)
    encoder.save_pretrained(folder / ENCODER)
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, folder / WEIGHTS)
    return {"path": str(folder), "weights": WEIGHTS, "image_encoder": ENCODER}


def plain_pipe(model: str, adapter: dict[str, Any], dtype: torch.dtype) -> Any:
    """Return a tiny pipeline with an IP-adapter, loaded as a script does."""
    pipe = inspect_model(tiny(model)).pipeline_class.from_pretrained(tiny(model), dtype=dtype)
    pipe.load_ip_adapter(
        adapter["path"],
        subfolder="",
        weight_name=adapter["weights"],
        image_encoder_folder=adapter["image_encoder"],
    )
    pipe.set_ip_adapter_scale(adapter.get("scale", 1.0))
    return pipe
