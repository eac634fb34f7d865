"""Tiny encoders of text and pictures with their tokenizers and processors, all built from code."""

from __future__ import annotations

from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from transformers import (
    ByT5Tokenizer,
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    LlamaConfig,
    LlamaModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

from tests.tinies.templates import template_tokenizer

TEXT_WIDTH = 32
IMAGE_WIDTH = 32


def t5() -> T5EncoderModel:
    config = T5Config(vocab_size=384, d_model=TEXT_WIDTH, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    return T5EncoderModel(config)


def clip() -> CLIPTextModel:
    return CLIPTextModel(_clip_config(TEXT_WIDTH))


def projected_clip(width: int) -> CLIPTextModelWithProjection:
    """Return an encoder whose hidden states and pooled output are both `width` wide."""
    return CLIPTextModelWithProjection(_clip_config(width))


def clip_tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer(vocab=_clip_vocabulary(), merges=[], model_max_length=77)


def llama() -> LlamaModel:
    return LlamaModel(
        LlamaConfig(
            vocab_size=384 + DEFAULT_PROMPT_TEMPLATE["crop_start"],
            hidden_size=TEXT_WIDTH,
            intermediate_size=64,
            num_hidden_layers=3,  # HunyuanVideo takes what comes two before the last
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    )


def llama_tokenizer() -> ByT5Tokenizer:
    """Return one of bytes that makes as many tokens of HunyuanVideo's own words as Llama's."""
    return template_tokenizer(DEFAULT_PROMPT_TEMPLATE["template"], DEFAULT_PROMPT_TEMPLATE["crop_start"])


def qwen() -> Qwen2_5_VLForConditionalGeneration:
    text = {
        "vocab_size": 384,
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 3,  # HunyuanImage takes what comes two before the last
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "bos_token_id": None,
        "eos_token_id": 1,  # ByT5's
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    }
    sight = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": 32}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=sight))


def vision(*, image_size: int, patch_size: int) -> CLIPVisionModel:
    return CLIPVisionModel(_vision_config(image_size, patch_size))


def projected_vision(*, image_size: int, patch_size: int) -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(_vision_config(image_size, patch_size))


def image_processor(*, image_size: int) -> CLIPImageProcessor:
    crop = {"height": image_size, "width": image_size}
    return CLIPImageProcessor(size={"shortest_edge": image_size}, crop_size=crop)


def _clip_config(width: int) -> CLIPTextConfig:
    ends = len(_clip_vocabulary()) - 1
    return CLIPTextConfig(
        vocab_size=ends + 1,
        hidden_size=width,
        projection_dim=width,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=ends - 1,
        eos_token_id=ends,
        pad_token_id=ends,
    )


def _vision_config(image_size: int, patch_size: int) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=IMAGE_WIDTH,
        projection_dim=IMAGE_WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=image_size,
        patch_size=patch_size,
    )


def _clip_vocabulary() -> dict[str, int]:
    """Return ids for single bytes, bytes that end a word, and CLIP's two marks: a CLIP without merges."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2's byte alphabet ...
    spare = (chr(256 + i) for i in range(256 - len(printable)))  # ... and its stand-ins for the rest
    alphabet = [chr(b) if b in printable else next(spare) for b in range(256)]
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}
