"""Write weights of diffusers' networks under the names that publishers gave them, in one file as they do.

The names are those of Stable Diffusion 1.5 and XL, FLUX.1 and Wan 2.1 as published, with a tiny width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

Weights = dict[str, torch.Tensor]

_RESNET = {
    **{"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"},
    **{"norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"},
}
_WAN = {
    **{"condition_embedder.time_embedder.linear_1": "time_embedding.0", "attn1": "self_attn"},
    **{"condition_embedder.time_embedder.linear_2": "time_embedding.2", "attn2": "cross_attn"},
    **{"condition_embedder.text_embedder.linear_1": "text_embedding.0", "ffn.net.0.proj": "ffn.0"},
    **{"condition_embedder.text_embedder.linear_2": "text_embedding.2", "ffn.net.2": "ffn.2"},
    **{"condition_embedder.time_proj": "time_projection.1", ".to_out.0.": ".o.", "proj_out": "head.head"},
    **{".to_q.": ".q.", ".to_k.": ".k.", ".to_v.": ".v.", "norm2": "norm3", "norm3": "norm2"},
}


def wan(transformer: Any) -> Weights:
    """Wan 2.1: one file with the transformer, as ComfyUI has it."""
    weights = {}
    for name, value in transformer.state_dict().items():
        original = (
            "head.modulation"
            if name == "scale_shift_table"
            else name.replace("scale_shift_table", "modulation")
        )
        weights[f"model.diffusion_model.{_renamed(original, _WAN)}"] = value
    return weights


def stable_diffusion(pipe: Any) -> Weights:
    """Stable Diffusion 1.5: network, autoencoder and text encoder in one file, with what training left."""
    clip = _prefixed(_clip(pipe.text_encoder), "cond_stage_model.transformer.")
    left = {
        "model_ema.decay": torch.tensor(0.99),
        "betas": torch.ones(4),
        "sqrt_one_minus_alphas_cumprod": torch.ones(4),
    }
    positions = {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(4)[None]}
    return _unet(pipe.unet) | _autoencoder(pipe.vae) | clip | left | positions


def stable_diffusion_xl(pipe: Any) -> Weights:
    """Stable Diffusion XL: the same with two text encoders, the second named by OpenCLIP."""
    first = _prefixed(_clip(pipe.text_encoder), "conditioner.embedders.0.transformer.")
    second = _prefixed(_open_clip(pipe.text_encoder_2), "conditioner.embedders.1.model.")
    return _unet(pipe.unet) | _autoencoder(pipe.vae) | first | second


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """Return a name with all of these parts replaced at once."""
    pattern = "|".join(re.escape(one) for one in sorted(names, key=len, reverse=True))
    return re.sub(pattern, lambda match: names[match[0]], name)


def _prefixed(weights: Weights, prefix: str) -> Weights:
    return {prefix + name: value for name, value in weights.items()}


def _unet(unet: Any) -> Weights:
    layers, places = unet.config.layers_per_block, {}
    for level in range(len(unet.down_blocks)):
        first = 1 + level * (layers + 1)
        for layer in range(layers):
            places[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{first + layer}.0"
            places[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{first + layer}.1"
        places[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{first + layers}.0.op"
    for level, block in enumerate(unet.up_blocks):
        first = level * (layers + 1)
        for layer in range(layers + 1):
            places[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{first + layer}.0"
            places[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{first + layer}.1"
        place = 2 if hasattr(block, "attentions") else 1
        places[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{first + layers}.{place}.conv"
    places |= {"mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1"}
    places |= {"mid_block.resnets.1": "middle_block.2", "conv_in": "input_blocks.0.0"}
    places |= {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
    places |= {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
    places |= {"conv_norm_out": "out.0", "conv_out": "out.2"}
    weights = {}
    for name, value in unet.state_dict().items():
        place = next(one for one in places if name.startswith(f"{one}."))
        inner = name.removeprefix(place)
        weights[places[place] + (_renamed(inner, _RESNET) if ".resnets." in name else inner)] = value
    return _prefixed(weights, "model.diffusion_model.")


def _autoencoder(vae: Any) -> Weights:
    weights, levels = {}, len(vae.config.block_out_channels)
    for name, value in vae.state_dict().items():
        original = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        original = original.replace("mid_block.attentions.0", "mid.attn_1")
        original = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", original)
        original = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", original)
        original = re.sub(
            r"up_blocks\.(\d)\.(resnets|upsamplers\.0)",
            lambda m: f"up.{levels - 1 - int(m[1])}.{'block' if m[2] == 'resnets' else 'upsample'}",
            original,
        )
        original = original.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        if "attn_1" in original:
            original = _renamed(
                original,
                {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "group_norm": "norm"},
            )
            value = value[:, :, None, None] if value.ndim == 2 else value  # convolutions of one pixel
        weights[original] = value
    return _prefixed(weights, "first_stage_model.")


def _clip(encoder: Any) -> Weights:
    names = encoder.state_dict().items()
    return {name if name.startswith("text_") else f"text_model.{name}": value for name, value in names}


def _open_clip(encoder: Any) -> Weights:
    state = {name.removeprefix("text_model."): value for name, value in encoder.state_dict().items()}
    weights: Weights = {"text_projection": state.pop("text_projection.weight").T.contiguous()}
    weights["logit_scale"] = torch.tensor(1.0)
    for layer in range(encoder.config.num_hidden_layers):
        for kind in ("weight", "bias"):
            parts = [state.pop(f"encoder.layers.{layer}.self_attn.{part}_proj.{kind}") for part in "qkv"]
            weights[f"transformer.resblocks.{layer}.attn.in_proj_{kind}"] = torch.cat(parts)
    names = {
        **{"embeddings.token_embedding": "token_embedding", "final_layer_norm": "ln_final"},
        **{"embeddings.position_embedding.weight": "positional_embedding"},
        **{"encoder.layers": "transformer.resblocks", "layer_norm1": "ln_1", "layer_norm2": "ln_2"},
        **{"self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"},
    }
    return weights | {_renamed(name, names): value for name, value in state.items()}
