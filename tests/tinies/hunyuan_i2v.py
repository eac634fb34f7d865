"""Tiny HunyuanVideo from a picture: one language model reads picture and prompt together."""

from __future__ import annotations

import itertools

import transformers
from diffusers import DiffusionPipeline, HunyuanVideoImageToVideoPipeline, HunyuanVideoTransformer3DModel
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_image2video import DEFAULT_PROMPT_TEMPLATE

from tests.tinies.encoders import image_processor, language_model
from tests.tinies.hunyuan import parts, sizes

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
