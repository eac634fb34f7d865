"""Tiny pipelines of autumn 2026: Ideogram 4, FIBO, SANA-WM, JoyImage, edits by LongCat and Z-Image."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers

from tests.tinies import encoders, flux_kin, kandinsky, ltx2, qwen_kin, wan, z_image as z_images
from tests.tinies.image import image_autoencoder
from tests.tinies.table import LARGER, ONE_LAYER, ONE_OF_EACH, STEPS, Tinies, of

EDIT_PROMPT = '{"edit_instruction": "make it blue"}'  # it takes no other
_TAPPED = 13  # layers of the encoder that Ideogram 4 reads
_DEEP = 36  # layers, of which it and FIBO 2 read the last


def ideogram4() -> diffusers.DiffusionPipeline:
    """Two transformers: one with the text, one without."""
    sizes: dict[str, Any] = {
        "in_channels": flux_kin.PACKED,
        **ONE_LAYER,
        "intermediate_size": 64,
        "adaln_dim": 32,
        "llm_features_dim": _TAPPED * encoders.TEXT_WIDTH,
        "mrope_section": (4, 2, 2),
    }
    return diffusers.Ideogram4Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=flux_kin.flux2_autoencoder(),
        text_encoder=encoders.qwen3_vl(num_layers=_DEEP).model,
        tokenizer=encoders.sight_tokenizer(),
        transformer=diffusers.Ideogram4Transformer2DModel(**sizes),
        unconditional_transformer=diffusers.Ideogram4Transformer2DModel(**sizes),
    )


def fibo2() -> diffusers.DiffusionPipeline:
    transformer = diffusers.BriaFibo2Transformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=6,
        n_refiner_layers=1,
        n_heads=2,
        cap_feat_dim=3 * encoders.TEXT_WIDTH,
        injection_layer_ids=(1, 2, 3, 4, 5),
        perceiver_num_layers=1,
        min_num_gist_tokens=4,
        max_num_gist_tokens=8,
        gist_step=4,
        axes_dims=(4, 6, 6),
    )
    return diffusers.BriaFibo2Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=flux_kin.flux2_autoencoder(),
        text_encoder=encoders.qwen3_vl(num_layers=_DEEP),
        processor=encoders.sight_processor(),
    )


def _fibo_parts() -> dict[str, Any]:
    transformer = diffusers.BriaFiboTransformer2DModel(
        in_channels=48,
        **ONE_OF_EACH,
        joint_attention_dim=2 * encoders.TEXT_WIDTH,
        axes_dims_rope=[4, 6, 6],
        text_encoder_dim=encoders.TEXT_WIDTH,
    )
    text_encoder = transformers.SmolLM3ForCausalLM(
        transformers.SmolLM3Config(
            **encoders.language_model(2, vocab_size=128_001),  # an empty prompt is the last of these
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
    )
    return {
        "transformer": transformer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "vae": wan.wan_ti2v().vae,
        "text_encoder": text_encoder,
        "tokenizer": encoders.chat_tokenizer(),
    }


_JOY: dict[str, Any] = {
    "in_channels": 4,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "text_dim": encoders.TEXT_WIDTH,
    "num_layers": 1,
    "rope_dim_list": [4, 6, 6],
}


def _joy_parts(network: type[Any]) -> dict[str, Any]:
    return {
        "transformer": network(**_JOY),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        "vae": wan.wan_parts()["vae"],
        "text_encoder": encoders.qwen3_vl(num_layers=2),
        "tokenizer": encoders.sight_tokenizer(),
        "processor": encoders.sight_processor(),
    }


def z_image_omni() -> diffusers.DiffusionPipeline:
    parts = z_images.z_image().components
    parts["transformer"] = diffusers.ZImageTransformer2DModel(**z_images.TRANSFORMER, siglip_feat_dim=32)
    sizes = {name: size for name, size in encoders.SIGHT.items() if name != "image_size"}
    siglip = transformers.Siglip2VisionConfig(**sizes, num_patches=16)
    processor = transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    return diffusers.ZImageOmniPipeline(
        **parts, siglip=transformers.Siglip2VisionModel(siglip), siglip_processor=processor
    )


def kandinsky_t2i() -> diffusers.DiffusionPipeline:
    parts = kandinsky.kandinsky().components | {"vae": image_autoencoder(kandinsky.CHANNELS)}
    return diffusers.Kandinsky5T2IPipeline(**parts)


def kandinsky_i2i() -> diffusers.DiffusionPipeline:
    parts = kandinsky.kandinsky_i2v().components | {"vae": image_autoencoder(kandinsky.CHANNELS)}
    return diffusers.Kandinsky5I2IPipeline(**parts | {"tokenizer": encoders.sight_processor()})


def sana_wm() -> diffusers.DiffusionPipeline:
    transformer = diffusers.SanaWMTransformer3DModel(
        in_channels=8,
        num_layers=2,
        hidden_size=32,
        num_attention_heads=2,
        softmax_every_n=2,
        linear_head_dim=16,
        chunk_plucker_post_attn_blocks=2,
        caption_channels=encoders.TEXT_WIDTH,
        image_size=32,
        mixed_precision="fp32",
    )
    return diffusers.SanaWMPipeline(
        tokenizer=encoders.chat_tokenizer(),
        text_encoder=encoders.gemma2(),
        vae=ltx2.parts()["vae"],
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=8.0),
    )


_FIBO = STEPS | {"height": 64, "width": 64}
TINIES: Tinies = {
    "ideogram4": (ideogram4, LARGER | {"guidance_schedule": [7.0, 3.0], "max_sequence_length": 128}, ()),
    "fibo2": (fibo2, LARGER, ()),
    "fibo": of("BriaFiboPipeline", _fibo_parts, _FIBO),
    "fibo_edit": of("BriaFiboEditPipeline", _fibo_parts, _FIBO | {"prompt": EDIT_PROMPT}, "image"),
    "joy_edit": of(
        "JoyImageEditPipeline", lambda: _joy_parts(diffusers.JoyImageEditTransformer3DModel), LARGER, "image"
    ),
    "joy_edit_plus": of(
        "JoyImageEditPlusPipeline",
        lambda: _joy_parts(diffusers.JoyImageEditPlusTransformer3DModel),
        LARGER,
        images=2,  # a list
    ),
    "longcat_edit": of("LongCatImageEditPipeline", qwen_kin.longcat, STEPS, "image"),
    "z_image_omni": (z_image_omni, LARGER, ()),
    "kandinsky_t2i": (kandinsky_t2i, LARGER, ()),
    "kandinsky_i2i": (kandinsky_i2i, LARGER, ("image",)),
    "sana_wm": (
        sana_wm,
        {"height": 64, "width": 64, "num_frames": 9, "num_inference_steps": 2}  # it takes no single latent
        | {"action": "w-8", "intrinsics": [50.0, 50.0, 32.0, 32.0]},
        ("image",),
    ),
}
