"""Tiny pipelines around Stable Diffusion: older ones, variations, upscalers, maps of a picture, Kolors."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import diffusers
from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig, ChatGLMModel
from diffusers.pipelines.kolors.tokenizer import ChatGLMTokenizer
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from sentencepiece import SentencePieceTrainer
from transformers import ByT5Tokenizer

from tests.tinies.encoders import TEXT_WIDTH, clip, clip_tokenizer, image_processor, projected_vision
from tests.tinies.image import NOISE, image_autoencoder, sd, unet, unet_xl
from tests.tinies.image_edits import sd_parts
from tests.tinies.table import IMAGE, REDRAWN, STEPS, Tinies, of, parts


def sd_variation() -> diffusers.DiffusionPipeline:
    """A picture's CLIP embedding stands where a text's would."""
    return diffusers.StableDiffusionImageVariationPipeline(
        image_encoder=projected_vision(image_size=32, patch_size=8),
        vae=image_autoencoder(),
        unet=unet(),
        scheduler=diffusers.DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=image_processor(image_size=32),
        requires_safety_checker=False,
    )


def sd_upscale() -> diffusers.DiffusionPipeline:
    """Latents beside the small picture, with noise on it: four pixels to each of its."""
    return diffusers.StableDiffusionUpscalePipeline(
        **_text(),
        vae=image_autoencoder(levels=3),
        unet=unet(in_channels=7, out_channels=4, num_class_embeds=1000),
        low_res_scheduler=diffusers.DDPMScheduler(),
        scheduler=diffusers.DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
    )


def sd_latent_upscale() -> diffusers.DiffusionPipeline:
    denoiser = diffusers.UNet2DConditionModel(
        in_channels=8,
        out_channels=5,
        act_fn="gelu",
        block_out_channels=(32, 64, 64),
        down_block_types=("KDownBlock2D", "KCrossAttnDownBlock2D", "KCrossAttnDownBlock2D"),
        up_block_types=("KCrossAttnUpBlock2D", "KCrossAttnUpBlock2D", "KUpBlock2D"),
        mid_block_type=None,
        layers_per_block=1,
        attention_head_dim=8,
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=None,
        resnet_time_scale_shift="scale_shift",
        time_embedding_type="fourier",
        timestep_post_act="gelu",
        time_cond_proj_dim=128 + TEXT_WIDTH,  # how noisy the picture is, and the pooled text
        conv_in_kernel=1,
        conv_out_kernel=1,
    )
    return diffusers.StableDiffusionLatentUpscalePipeline(
        **_text(), vae=image_autoencoder(), unet=denoiser, scheduler=diffusers.EulerDiscreteScheduler(**NOISE)
    )


def ldm() -> diffusers.DiffusionPipeline:
    """What came before Stable Diffusion: a BERT reads the text."""
    encoder = LDMBertConfig(
        vocab_size=384,
        encoder_layers=2,
        encoder_ffn_dim=64,
        encoder_attention_heads=2,
        head_dim=16,
        d_model=TEXT_WIDTH,
    )
    return diffusers.LDMTextToImagePipeline(
        tokenizer=ByT5Tokenizer(),
        bert=LDMBertModel(encoder),
        vqvae=image_autoencoder(),
        unet=unet(),
        scheduler=diffusers.DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
    )


def _text() -> dict[str, Any]:
    return {"tokenizer": clip_tokenizer(), "text_encoder": clip()}


_DEFAULTS = {"default_denoising_steps": 2, "default_processing_resolution": 16}


def ldm3d() -> diffusers.DiffusionPipeline:
    """As Intel/ldm3d-4c: the autoencoder decodes to colours and one channel of depth."""
    return _ldm3d(channels=4)


def _intrinsics() -> dict[str, Any]:
    names = {"target_names": ["albedo", "roughness"]}
    return _estimating("intrinsics", num_maps=2) | {"target_properties": names}


def _estimating(kind: str, *, num_maps: int = 1) -> dict[str, Any]:
    latents = 4 * num_maps
    denoiser = unet(in_channels=4 + latents, out_channels=latents)
    return parts(sd()) | _DEFAULTS | {"unet": denoiser, "prediction_type": kind}


def _ldm3d(*, channels: int) -> diffusers.DiffusionPipeline:
    autoencoder = diffusers.AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=2,
        sample_size=64,
    )
    given = sd_parts() | {"vae": autoencoder, "image_encoder": None}
    return diffusers.StableDiffusionLDM3DPipeline(**given)


_MAPS = STEPS | {"processing_resolution": 16}


_CHATGLM = {"num_layers": 2, "hidden_size": TEXT_WIDTH, "ffn_hidden_size": 64, "kv_channels": 16}


def _parts() -> dict[str, Any]:
    tokenizer = _tokenizer()
    encoder = ChatGLMConfig(
        **_CHATGLM,
        num_attention_heads=2,
        padded_vocab_size=tokenizer.vocab_size,
        multi_query_attention=True,
        add_qkv_bias=True,
        original_rope=True,
    )
    denoiser = unet_xl(
        cross_attention_dim=TEXT_WIDTH, encoder_hid_dim=TEXT_WIDTH, encoder_hid_dim_type="text_proj"
    )
    return {
        "tokenizer": tokenizer,
        "text_encoder": ChatGLMModel(encoder),
        "vae": image_autoencoder(),
        "unet": denoiser,
        "scheduler": diffusers.EulerDiscreteScheduler(**NOISE, timestep_spacing="leading"),
    }


def _tokenizer() -> ChatGLMTokenizer:
    """Return one of single bytes: SentencePiece writes its model, and the tokenizer reads the file."""
    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["a red ball in the rain"]),
        model_writer=written,
        vocab_size=280,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path = Path(tempfile.mkdtemp(prefix="framefleet-chatglm-")) / "tokenizer.model"
    path.write_bytes(written.getvalue())  # kept for the process: saving the pipeline copies it
    return ChatGLMTokenizer(str(path))


_CALL = IMAGE | {"max_sequence_length": 64}


TINIES: Tinies = {
    "ldm": (ldm, IMAGE, ()),
    "sd_variation": (sd_variation, IMAGE, ("image",)),
    # Two views of 512.
    "sd_panorama": of("StableDiffusionPanoramaPipeline", sd_parts, IMAGE | {"width": 576}),
    # It blurs nine latents at once.
    "sd_sag": of("StableDiffusionSAGPipeline", sd_parts, STEPS | {"height": 64, "width": 64}),
    "sd_semantic": of(
        "SemanticStableDiffusionPipeline",
        sd_parts,
        IMAGE | {"editing_prompt": "smiling", "edit_warmup_steps": 0},
    ),
    "sd_upscale": (sd_upscale, STEPS, ("image",)),
    "sd_latent_upscale": (sd_latent_upscale, STEPS, ("image",)),
    "ldm3d": (ldm3d, IMAGE, ()),
    # As Intel/ldm3d: the depth is 16 bits in two channels of a second picture.
    "ldm3d_rgb": (lambda: _ldm3d(channels=6), IMAGE, ()),
    "marigold_depth": of("MarigoldDepthPipeline", lambda: _estimating("depth"), _MAPS, "image"),
    "marigold_normals": of("MarigoldNormalsPipeline", lambda: _estimating("normals"), _MAPS, "image"),
    "marigold_intrinsics": of("MarigoldIntrinsicsPipeline", _intrinsics, _MAPS, "image"),
    "kolors": of("KolorsPipeline", _parts, _CALL),
    "kolors_img2img": of("KolorsImg2ImgPipeline", _parts, REDRAWN | {"max_sequence_length": 64}, "image"),
    "kolors_pag": of("KolorsPAGPipeline", _parts, _CALL),
}
