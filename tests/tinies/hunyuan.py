"""Tiny pipelines of HunyuanVideo and its kin: FramePack, HunyuanVideo 1.5; and Hunyuan-DiT."""

from __future__ import annotations

import itertools
from typing import Any

import diffusers
import transformers
from diffusers import DiffusionPipeline, HunyuanVideoImageToVideoPipeline, HunyuanVideoTransformer3DModel
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_image2video import DEFAULT_PROMPT_TEMPLATE
from transformers import (
    BertConfig,
    BertModel,
    ByT5Tokenizer,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from tests.tinies import encoders
from tests.tinies.encoders import BARE_CHAT, TEXT_WIDTH, image_processor, language_model, t5
from tests.tinies.image import image_autoencoder
from tests.tinies.image_edits import UNSAFE
from tests.tinies.table import HEADS, LARGER, ONE_LAYER, ONE_OF_EACH, Tinies, of

CHANNELS = 4  # of the latents


def hunyuan() -> diffusers.DiffusionPipeline:
    transformer = diffusers.HunyuanVideoTransformer3DModel(**sizes())
    return diffusers.HunyuanVideoPipeline(**parts(), transformer=transformer)


def hunyuan_skyreels_i2v() -> diffusers.DiffusionPipeline:
    """The picture's latents beside the noise."""
    transformer = diffusers.HunyuanVideoTransformer3DModel(**sizes(in_channels=2 * CHANNELS))
    return diffusers.HunyuanSkyreelsImageToVideoPipeline(**parts(), transformer=transformer)


def framepack() -> diffusers.DiffusionPipeline:
    """A clip grows window by window, from its end to its start."""
    transformer = diffusers.HunyuanVideoFramepackTransformer3DModel(
        **sizes(), has_image_proj=True, image_proj_dim=encoders.IMAGE_WIDTH, has_clean_x_embedder=True
    )
    return diffusers.HunyuanVideoFramepackPipeline(**parts(), transformer=transformer, **_siglip())


def hunyuan_1_5() -> diffusers.DiffusionPipeline:
    return diffusers.HunyuanVideo15Pipeline(**_parts_of_1_5("t2v"))


def hunyuan_1_5_i2v() -> diffusers.DiffusionPipeline:
    return diffusers.HunyuanVideo15ImageToVideoPipeline(**_parts_of_1_5("i2v"), **_siglip())


def _siglip() -> dict[str, Any]:
    config = SiglipVisionConfig(**encoders.SIGHT | {"num_hidden_layers": 2})
    reader = SiglipImageProcessor(size={"height": 32, "width": 32})
    return {"image_encoder": SiglipVisionModel(config), "feature_extractor": reader}


def sizes(*, in_channels: int = CHANNELS) -> dict[str, Any]:
    return {
        "in_channels": in_channels,
        "out_channels": CHANNELS,
        **ONE_OF_EACH,
        "num_refiner_layers": 1,
        "text_embed_dim": encoders.TEXT_WIDTH,
        "pooled_projection_dim": encoders.TEXT_WIDTH,
        "rope_axes_dim": (4, 6, 6),
    }


def parts() -> dict[str, Any]:
    return {
        "tokenizer": encoders.llama_tokenizer(),
        "text_encoder": encoders.llama(),
        "tokenizer_2": encoders.clip_tokenizer(),
        "text_encoder_2": encoders.clip(),
        "vae": encoders.hunyuan_autoencoder(),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
    }


def _parts_of_1_5(task: str) -> dict[str, Any]:
    transformer = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=2 * CHANNELS + 1,  # the noise, a first frame, and where it is
        out_channels=CHANNELS,
        **ONE_LAYER,
        num_refiner_layers=1,
        text_embed_dim=encoders.TEXT_WIDTH,
        text_embed_2_dim=encoders.TEXT_WIDTH,
        image_embed_dim=encoders.IMAGE_WIDTH,
        rope_axes_dim=(4, 6, 6),
        target_size=16,
        task_type=task,
    )
    vae = diffusers.AutoencoderKLHunyuanVideo15(
        latent_channels=CHANNELS,
        block_out_channels=(16, 16),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=2,
        downsample_match_channel=False,
        upsample_match_channel=False,
    )
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = BARE_CHAT
    return {
        "tokenizer": tokenizer,
        "text_encoder": encoders.qwen().model.language_model,
        "tokenizer_2": ByT5Tokenizer(),
        "text_encoder_2": encoders.t5(),
        "vae": vae,
        "transformer": transformer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0),
        "guider": diffusers.ClassifierFreeGuidance(guidance_scale=6.0),
    }


_PICTURE = "<image>"
_SIDE = 336  # pixels: 576 patches of 14, as many as the pipeline counts on


def hunyuan_i2v() -> DiffusionPipeline:
    """The first frame stays that of the picture."""
    tokenizer = _tokenizer()
    transformer = HunyuanVideoTransformer3DModel(**sizes(), image_condition_type="token_replace")
    reader = {"tokenizer": tokenizer, "text_encoder": _reader(tokenizer)}
    return HunyuanVideoImageToVideoPipeline(
        **parts() | reader, transformer=transformer, image_processor=image_processor(image_size=_SIDE)
    )


def _reader(tokenizer: transformers.ByT5Tokenizer) -> transformers.LlavaForConditionalGeneration:
    # Three layers: the pipeline takes what comes two before the last.
    text = transformers.LlamaConfig(**language_model(3, vocab_size=len(tokenizer)))
    sight = transformers.CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=_SIDE,
        patch_size=14,
    )
    config = transformers.LlavaConfig(
        text_config=text,
        vision_config=sight,
        image_token_index=tokenizer.convert_tokens_to_ids(_PICTURE),
        pad_token_id=tokenizer.pad_token_id,
    )
    return transformers.LlavaForConditionalGeneration(config)


def _tokenizer() -> transformers.ByT5Tokenizer:
    """Return one of bytes that makes as many tokens of the pipeline's own words as Llama's.

    It counts on the picture as the sixth, and cuts what stands before the prompt off by its number.
    """
    instruction, _, answer = DEFAULT_PROMPT_TEMPLATE["template"].partition("{}")
    words = instruction.partition(_PICTURE)[2].partition("<|eot_id|>")[0]
    marks = ["<|start_header_id|>", "sys", "tem", "<|end_header_id|>", "\n\n", _PICTURE, "<|eot_id|>", "user"]
    count = DEFAULT_PROMPT_TEMPLATE["crop_start"] - 12  # of marks before and behind the words
    ends = [len(words) * i // count for i in range(count + 1)]
    tokenizer = transformers.ByT5Tokenizer()
    tokenizer.add_tokens([*marks, "assistant"])
    tokenizer.add_tokens(sorted({words[start:end] for start, end in itertools.pairwise(ends)} - {*marks}))
    assert answer.startswith("<|eot_id|>")
    return tokenizer


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
    return {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": BertModel(BertConfig(**encoders.READER)),
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
    "hunyuan_dit_pag": of(
        "HunyuanDiTPAGPipeline", lambda: _parts() | {"pag_applied_layers": "blocks.1"}, _ANY_SIZE
    ),
}
