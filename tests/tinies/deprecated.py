"""Tiny pipelines of classes that diffusers calls deprecated, and of others from their time.

Most are Stable Diffusion with another call: `fitted` gives each what its constructor names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import diffusers
import transformers
from diffusers import DiffusionPipeline
from diffusers.pipelines.shap_e.renderer import ShapERenderer
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from torch import nn

from tests.tinies import encoders
from tests.tinies.image import NOISE, sd, sdxl, unet, unet_xl
from tests.tinies.image_edits import UNSAFE
from tests.tinies.table import IMAGE, MASKED, ONE_LAYER, REDRAWN, STEPS, TWO_LAYERS, Tinies, Tiny, of, parts
from tests.tinies.untexted import pixel_parts, pixel_unet

# ControlNet-XS has counterparts of these alone.
_XS: dict[str, Any] = {
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}


def fitted(
    kind: str, call: dict[str, Any], made_of: Callable[[], dict[str, Any]] = dict, *inputs: str
) -> Tiny:
    """Return the row of a pipeline of what its constructor names: `made_of`, or what Stable Diffusion has."""

    def pool() -> dict[str, Any]:
        names = inspect.signature(getattr(diffusers, kind)).parameters
        given = parts(sdxl() if "text_encoder_2" in names else sd()) | UNSAFE | made_of()
        return {name: given[name] for name in names if name in given}

    return of(kind, pool, call, *inputs)


def _sighted() -> dict[str, Any]:
    """Return what reads a picture as CLIP does."""
    return {
        "image_encoder": encoders.projected_vision(image_size=32, patch_size=8),
        "feature_extractor": encoders.image_processor(image_size=32),
    }


def _parallel() -> dict[str, Any]:
    scheduler = diffusers.DDIMParallelScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False)
    return {"scheduler": scheduler}


def _control_xs(denoiser: Any) -> dict[str, Any]:
    adapter = diffusers.ControlNetXSAdapter.from_unet(
        denoiser, size_ratio=1, conditioning_embedding_out_channels=(8, 8, 8, 8)
    )
    return {"unet": denoiser, "controlnet": adapter}


def _depth() -> dict[str, Any]:
    estimator = transformers.DPTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=4,
        backbone_out_indices=[0, 1, 2, 3],
        num_attention_heads=2,
        intermediate_size=64,
        is_hybrid=False,
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8,
    )
    return {
        "unet": unet(in_channels=5, out_channels=4),
        "depth_estimator": transformers.DPTForDepthEstimation(estimator),
        "feature_extractor": transformers.DPTImageProcessorPil(size={"height": 32, "width": 32}),
    }


def _checked() -> dict[str, Any]:
    """Return a safety checker, without which some classes cannot be loaded."""
    encoder = encoders.projected_vision(image_size=32, patch_size=8).config
    config = transformers.CLIPConfig(vision_config=encoder.to_dict(), projection_dim=encoder.projection_dim)
    return {
        "safety_checker": StableDiffusionSafetyChecker(config),
        "feature_extractor": encoders.image_processor(image_size=32),
    }


def _karras_ve() -> DiffusionPipeline:
    pipe = diffusers.KarrasVePipeline(pixel_unet(), diffusers.KarrasVeScheduler())
    # As published ones have it: diffusers would save the module that it was moved to, and not find it there.
    pipe.register_to_config(scheduler=("diffusers", "KarrasVeScheduler"))
    return pipe


def _vqvae() -> Any:
    return diffusers.VQModel(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=3,
        vq_embed_dim=3,
        num_vq_embeddings=12,
    )


def _unclip() -> dict[str, Any]:
    return {
        **_sighted(),
        "prior_tokenizer": encoders.clip_tokenizer(),
        "prior_text_encoder": encoders.projected_clip(encoders.TEXT_WIDTH),
        "prior": _prior(),
        "prior_scheduler": diffusers.DDPMScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0
        ),
        "image_normalizer": StableUnCLIPImageNormalizer(embedding_dim=encoders.TEXT_WIDTH),
        "image_noising_scheduler": diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        "unet": unet(
            class_embed_type="projection", projection_class_embeddings_input_dim=2 * encoders.TEXT_WIDTH
        ),
    }


def _prior(**settings: Any) -> Any:
    return diffusers.PriorTransformer(**ONE_LAYER, embedding_dim=encoders.TEXT_WIDTH, **settings)


def _shap_e(**given: Any) -> dict[str, Any]:
    """Return those of one that draws a body in 3D, and then pictures from around it."""
    prior = _prior(
        num_embeddings=32,
        embedding_proj_dim=encoders.TEXT_WIDTH,
        time_embed_dim=64,
        clip_embed_dim=2 * encoders.TEXT_WIDTH,
        additional_embeddings=0,
        time_embed_act_fn="gelu",
        norm_in_type="layer",
        encoder_hid_proj_type=None,
        added_emb_type=None,
        **given,
    )
    return {
        "text_encoder": encoders.projected_clip(encoders.TEXT_WIDTH),
        "image_encoder": encoders.vision(image_size=32, patch_size=8),
        "image_processor": encoders.image_processor(image_size=32),
        "prior": prior,
        "shap_e_renderer": ShapERenderer(
            param_shapes=((8, 93), (8, 8), (8, 8), (8, 8)),
            d_latent=encoders.TEXT_WIDTH,
            d_hidden=8,
            n_output=12,
            background=(0.1, 0.1, 0.1),
        ),
        "scheduler": diffusers.HeunDiscreteScheduler(
            beta_schedule="exp", num_train_timesteps=1024, prediction_type="sample", use_karras_sigmas=True
        ),
    }


def _unidiffuser() -> dict[str, Any]:
    network = diffusers.UniDiffuserModel(
        text_dim=encoders.TEXT_WIDTH,
        clip_img_dim=encoders.TEXT_WIDTH,
        **TWO_LAYERS,
        in_channels=4,
        out_channels=4,
        norm_num_groups=4,
        sample_size=2,
        patch_size=1,
    )
    decoder = diffusers.UniDiffuserTextDecoder(
        prefix_length=77,
        prefix_inner_dim=encoders.TEXT_WIDTH,
        prefix_hidden_dim=encoders.TEXT_WIDTH,
        vocab_size=384,
        n_positions=128,
        n_embd=encoders.TEXT_WIDTH,
        n_layer=1,
        n_head=2,
    )
    # Its head is the table of tokens again, and safetensors takes no two names of one memory.
    decoder.transformer.lm_head.weight = nn.Parameter(decoder.transformer.lm_head.weight.clone())
    words = encoders.roberta_tokenizer()
    return {
        **_sighted(),
        "clip_image_processor": encoders.image_processor(image_size=32),
        "clip_tokenizer": encoders.clip_tokenizer(),
        "text_decoder": decoder,
        "text_tokenizer": transformers.GPT2Tokenizer(vocab=words.get_vocab(), merges=[]),
        "unet": network,
    }


def _versatile_variation() -> dict[str, Any]:
    sight = _sighted()
    return sight | {"image_feature_extractor": sight["feature_extractor"], "image_unet": unet()}


_ZERO = STEPS | {"height": 32, "width": 32, "video_length": 3, "t0": 0, "t1": 1}
TINIES: Tinies = {
    "cycle_diffusion": fitted(
        "CycleDiffusionPipeline", REDRAWN | {"source_prompt": "a red cube"}, dict, "image"
    ),
    "sd_attend": fitted(
        "StableDiffusionAttendAndExcitePipeline",
        STEPS | {"height": 64, "width": 64, "token_indices": [2, 3], "attn_res": [8, 8]},
    ),
    "sd_control_xs": fitted(
        "StableDiffusionControlNetXSPipeline", IMAGE, lambda: _control_xs(unet(**_XS)), "image"
    ),
    "sdxl_control_xs": fitted(
        "StableDiffusionXLControlNetXSPipeline", IMAGE, lambda: _control_xs(unet_xl(**_XS)), "image"
    ),
    "sd_model_editing": fitted("StableDiffusionModelEditingPipeline", IMAGE),
    "sd_paradigms": fitted("StableDiffusionParadigmsPipeline", IMAGE | {"parallel": 3}, _parallel),
    "sd_depth": fitted("StableDiffusionDepth2ImgPipeline", REDRAWN, _depth, "image"),
    "text_to_video_zero": fitted("TextToVideoZeroPipeline", _ZERO, _checked),
    "text_to_video_zero_xl": fitted(
        "TextToVideoZeroSDXLPipeline",
        _ZERO,
        lambda: {"scheduler": diffusers.DDIMScheduler(), "image_encoder": None},
    ),
    "pndm": of("PNDMPipeline", lambda: pixel_parts(diffusers.PNDMScheduler()), STEPS),
    "karras_ve": (_karras_ve, STEPS, ()),
    "repaint": of(
        "RePaintPipeline",
        lambda: pixel_parts(diffusers.RePaintScheduler()),
        STEPS | {"jump_length": 2, "jump_n_sample": 2},
        *MASKED,
    ),
    "ldm_unconditional": of(
        "LDMPipeline", lambda: {"vqvae": _vqvae(), **pixel_parts(diffusers.DDIMScheduler())}, STEPS
    ),
    "stable_unclip": fitted("StableUnCLIPPipeline", IMAGE | {"prior_num_inference_steps": 2}, _unclip),
    "stable_unclip_img2img": fitted("StableUnCLIPImg2ImgPipeline", IMAGE, _unclip, "image"),
    "shap_e": fitted("ShapEPipeline", STEPS | {"frame_size": 32}, _shap_e),
    "shap_e_img2img": fitted(
        "ShapEImg2ImgPipeline",
        STEPS | {"frame_size": 32},
        lambda: _shap_e(embedding_proj_norm_type="layer"),
        "image",
    ),
    "unidiffuser": fitted("UniDiffuserPipeline", IMAGE, _unidiffuser),
    "versatile_variation": fitted(
        "VersatileDiffusionImageVariationPipeline", IMAGE, _versatile_variation, "image"
    ),
}
