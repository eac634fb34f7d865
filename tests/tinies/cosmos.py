"""Tiny Cosmos 1 to 3, whole and of blocks, with sound: their guardrail is `tests/guardrail`, a stand-in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.models.controlnets import controlnet_cosmos
from diffusers.models.transformers import transformer_cosmos
from diffusers.pipelines.cosmos import pipeline_cosmos2_5_predict
from transformers import ByT5Tokenizer

from tests.tinies.encoders import TEXT_WIDTH, chat_tokenizer, qwen, t5
from tests.tinies.table import FRAMES_5, FRAMES_9, HEADS, LARGER, TWO_LAYERS, Tinies, modular_of, of

CHANNELS = 4  # of latents


def _resize(mask: torch.Tensor, size: list[int], interpolation: str) -> torch.Tensor:
    return torch.nn.functional.interpolate(mask, size=size, mode=interpolation)


def _to_tensor(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)


# What these modules use of torchvision, which comes with the real guardrail. Tests do without: where it is,
# transformers reads pictures in another way.
_TRANSFORMS = SimpleNamespace(
    functional=SimpleNamespace(resize=_resize, to_tensor=_to_tensor),
    InterpolationMode=SimpleNamespace(NEAREST="nearest"),
)
if not hasattr(transformer_cosmos, "transforms"):
    transformer_cosmos.transforms = controlnet_cosmos.transforms = _TRANSFORMS
    pipeline_cosmos2_5_predict.torchvision = SimpleNamespace(transforms=_TRANSFORMS)


def cosmos25_transfer() -> diffusers.DiffusionPipeline:
    """With a ControlNet, as of edges."""
    controlnet = diffusers.CosmosControlNetModel(
        n_controlnet_blocks=2,
        in_channels=CHANNELS + 2,  # and two masks: what is given, and padding
        latent_channels=CHANNELS + 2,
        model_channels=32,
        **HEADS,
        mlp_ratio=2.0,
        text_embed_dim=3 * TEXT_WIDTH,
        adaln_lora_dim=4,
        max_size=(16, 16, 16),
        img_context_dim_in=8,
        img_context_dim_out=32,
    )
    return diffusers.Cosmos2_5_TransferPipeline(**_later(controls=True), controlnet=controlnet)


def cosmos3_distilled() -> diffusers.ModularPipeline:
    own = {"scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)}
    pipe = modular_of(diffusers.Cosmos3DistilledModularPipeline, cosmos3().components | own)
    pipe.update_components(distilled_sigmas=[1.0, 0.5])
    return pipe


def _guardrail() -> Any:
    from cosmos_guardrail import CosmosSafetyChecker  # tools that build other models do without

    return CosmosSafetyChecker()


def _first(**channels: int) -> dict[str, Any]:
    vae = diffusers.AutoencoderKLCosmos(
        latent_channels=CHANNELS,
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,),
        resolution=64,
        num_layers=1,
        spatial_compression_ratio=8,
        temporal_compression_ratio=4,
        latents_mean=None,
        latents_std=None,
    )
    scheduler = diffusers.EDMEulerScheduler(
        sigma_data=0.5, final_sigmas_type="sigma_min", prediction_type="epsilon"
    )
    return {**_from_t5(**channels), "vae": vae, "scheduler": scheduler}


def _second(**channels: int) -> dict[str, Any]:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
    return {**_from_t5(**channels), "vae": autoencoder(), "scheduler": scheduler}


def _later(*, controls: bool = False) -> dict[str, Any]:
    more: dict[str, Any] = {"controlnet_block_every_n": 1, "img_context_dim_in": 8} if controls else {}
    more |= {"img_context_num_tokens": 4, "img_context_dim_out": 32} if controls else {}
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
    )
    return {
        "text_encoder": qwen(),
        "tokenizer": chat_tokenizer(),
        "transformer": _transformer(in_channels=CHANNELS + 1, text_embed_dim=3 * TEXT_WIDTH, **more),
        "vae": autoencoder(),
        "scheduler": scheduler,
        "safety_checker": _guardrail(),
    }


def _from_t5(**channels: int) -> dict[str, Any]:
    return {
        "text_encoder": t5(),
        "tokenizer": ByT5Tokenizer(),
        "transformer": _transformer(text_embed_dim=TEXT_WIDTH, **channels),
        "safety_checker": _guardrail(),
    }


def _transformer(**settings: Any) -> diffusers.CosmosTransformer3DModel:
    return diffusers.CosmosTransformer3DModel(
        out_channels=CHANNELS,
        **TWO_LAYERS,
        mlp_ratio=2.0,
        adaln_lora_dim=4,
        max_size=(16, 16, 16),
        **({"extra_pos_embed_type": "learnable"} | settings),
    )


_VIDEO = FRAMES_9 | LARGER | {"max_sequence_length": 32}
_LONG_VIDEO = _VIDEO | {"max_sequence_length": 128}


SOUND_CHANNELS = 4


def cosmos3() -> diffusers.DiffusionPipeline:
    tokenizer = chat_tokenizer()
    tokenizer.add_tokens(["<|vision_start|>"])
    transformer = diffusers.Cosmos3OmniTransformer(
        head_dim=16,
        hidden_size=TEXT_WIDTH,
        intermediate_size=64,
        latent_channel=CHANNELS,
        latent_patch_size=2,
        patch_latent_dim=4 * CHANNELS,
        num_attention_heads=2,
        num_hidden_layers=1,
        num_key_value_heads=1,
        vocab_size=385,  # of bytes, and the mark before the frames
        sound_gen=True,
        sound_dim=SOUND_CHANNELS,
        sound_latent_fps=25.0,
        rope_axes_dim=(4, 2, 2),
    )
    sound = diffusers.Cosmos3AVAEAudioTokenizer(
        sampling_rate=800,  # 32 samples to a latent: 25 latents a second
        vocoder_input_dim=SOUND_CHANNELS,
        dec_dim=8,
        dec_c_mults=(1, 2),
        dec_strides=(4, 8),
        encoder_enabled=False,
    )
    return diffusers.Cosmos3OmniPipeline(
        transformer=transformer,
        text_tokenizer=tokenizer,
        vae=autoencoder(),
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=10.0
        ),
        sound_tokenizer=sound,
        enable_safety_checker=False,
    )


def autoencoder() -> diffusers.AutoencoderKLWan:
    return diffusers.AutoencoderKLWan(
        base_dim=8,
        z_dim=CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * CHANNELS,
        latents_std=[0.7] * CHANNELS,
    )


TINIES: Tinies = {
    "cosmos_t2w": of("CosmosTextToWorldPipeline", lambda: _first(in_channels=CHANNELS), _VIDEO),
    "cosmos_v2w": of("CosmosVideoToWorldPipeline", lambda: _first(in_channels=CHANNELS + 1), _VIDEO, video=5),
    "cosmos2_t2i": of(
        "Cosmos2TextToImagePipeline",
        lambda: _second(in_channels=CHANNELS),
        LARGER | {"max_sequence_length": 32},
    ),
    "cosmos2_v2w": of(
        "Cosmos2VideoToWorldPipeline", lambda: _second(in_channels=CHANNELS + 1), _VIDEO, "image"
    ),
    "cosmos25_predict": of("Cosmos2_5_PredictBasePipeline", _later, _LONG_VIDEO, video=9),
    "cosmos25_transfer": (cosmos25_transfer, _LONG_VIDEO | {"num_frames_per_chunk": 9}, {"controls": 9}),
    "cosmos3_modular": of("Cosmos3OmniModularPipeline", cosmos3, FRAMES_5),
    "cosmos3_distilled": (cosmos3_distilled, {"height": 16, "width": 16, "num_frames": 5}, ()),
}
