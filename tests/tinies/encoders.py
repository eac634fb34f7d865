"""Tiny encoders of text and pictures with their tokenizers and processors, all built from code."""

from __future__ import annotations

import itertools
from typing import Any

import diffusers
import transformers
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from transformers import ByT5Tokenizer

TEXT_WIDTH = 32
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IMAGE_WIDTH = 32
# What configs of tiny encoders of text and of pictures have in common.
READER: dict[str, Any] = {
    "vocab_size": 384,
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
SIGHT: dict[str, Any] = {
    "hidden_size": IMAGE_WIDTH,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
PATCH = 14  # pixels of a picture that Qwen sees as one
QWEN_SIGHT: dict[str, Any] = {
    "depth": 1,
    "hidden_size": 32,
    "num_heads": 2,
    "intermediate_size": 64,
    "out_hidden_size": 32,
    "patch_size": PATCH,
}
TURNS: dict[str, Any] = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
# What Qwen's texts have in place of pictures and around them, and their ids: after ByT5's bytes.
MARKS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
PICTURE_ID, VIDEO_ID, START_ID, END_ID = range(259, 263)


def t5() -> transformers.T5EncoderModel:
    config = transformers.T5Config(
        vocab_size=384, d_model=TEXT_WIDTH, d_kv=16, d_ff=64, num_layers=2, num_heads=2
    )
    return transformers.T5EncoderModel(config)


def clip() -> transformers.CLIPTextModel:
    return transformers.CLIPTextModel(_clip_config(TEXT_WIDTH))


def projected_clip(width: int) -> transformers.CLIPTextModelWithProjection:
    """Return an encoder whose hidden states and pooled output are both `width` wide."""
    return transformers.CLIPTextModelWithProjection(_clip_config(width))


def clip_tokenizer() -> transformers.CLIPTokenizer:
    return transformers.CLIPTokenizer(vocab=_clip_vocabulary(), merges=[], model_max_length=77)


def roberta_tokenizer() -> transformers.RobertaTokenizer:
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *_byte_alphabet()]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return transformers.RobertaTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def t5_tokenizer() -> transformers.T5Tokenizer:
    """Return one of printable ASCII; all else is unknown to it."""
    tokens = ["<pad>", "</s>", "<unk>", "▁", *map(chr, range(33, 127))]
    return transformers.T5Tokenizer(
        vocab=[(token, 0.0) for token in tokens], extra_ids=0, model_max_length=77
    )


def llama() -> transformers.LlamaModel:
    num_tokens = 384 + DEFAULT_PROMPT_TEMPLATE["crop_start"]
    # Three layers: HunyuanVideo takes what comes two before the last.
    return transformers.LlamaModel(transformers.LlamaConfig(**language_model(3, vocab_size=num_tokens)))


def llama_tokenizer() -> transformers.ByT5Tokenizer:
    """Return one of bytes that makes as many tokens of HunyuanVideo's own words as Llama's.

    The pipeline cuts these off by their number, and with more of them it would cut off the prompt.
    """
    return template_tokenizer(DEFAULT_PROMPT_TEMPLATE["template"], DEFAULT_PROMPT_TEMPLATE["crop_start"])


def qwen(num_added: int = 0) -> transformers.Qwen2_5_VLForConditionalGeneration:
    """num_added: tokens beside bytes."""
    text = language_model(
        3,  # HunyuanImage takes what comes two before the last
        vocab_size=384 + num_added,
        bos_token_id=None,
        eos_token_id=1,  # ByT5's
        rope_parameters=TURNS,
    )
    config = transformers.Qwen2_5_VLConfig(
        text_config=text, vision_config=QWEN_SIGHT, image_token_id=PICTURE_ID
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def chat_tokenizer() -> transformers.ByT5Tokenizer:
    """Return one of bytes that knows how a conversation is written."""
    tokenizer = transformers.ByT5Tokenizer()
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen3(*, num_layers: int) -> transformers.Qwen3ForCausalLM:
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**language_model(num_layers), head_dim=16))


def mistral3(*, num_layers: int) -> transformers.Mistral3ForConditionalGeneration:
    text = {"model_type": "mistral", **language_model(num_layers, head_dim=16)}
    sight = {"model_type": "pixtral", "head_dim": 16, **SIGHT}
    config = transformers.Mistral3Config(text_config=text, vision_config=sight)
    return transformers.Mistral3ForConditionalGeneration(config)


def gemma2() -> transformers.Gemma2Model:
    return transformers.Gemma2Model(transformers.Gemma2Config(**language_model(2), head_dim=16))


def glm() -> transformers.GlmModel:
    return transformers.GlmModel(transformers.GlmConfig(**language_model(2), head_dim=16, pad_token_id=0))


def causal_llama() -> transformers.LlamaForCausalLM:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**language_model(2)))


def qwen3_vl(*, num_layers: int) -> transformers.Qwen3VLForConditionalGeneration:
    return transformers.Qwen3VLForConditionalGeneration(
        transformers.Qwen3VLConfig(
            text_config=language_model(num_layers, head_dim=16, rope_parameters=TURNS),
            vision_config=QWEN_SIGHT | {"deepstack_visual_indexes": [0]},
            image_token_id=PICTURE_ID,
            video_token_id=VIDEO_ID,
            vision_start_token_id=START_ID,
            vision_end_token_id=END_ID,
        )
    )


def sight_tokenizer() -> transformers.ByT5Tokenizer:
    """Return `chat_tokenizer` with the marks that stand for pictures' tokens."""
    tokenizer = transformers.ByT5Tokenizer(extra_special_tokens=MARKS)
    tokenizer.chat_template = CHAT
    assert tokenizer.convert_tokens_to_ids("<|image_pad|>") == PICTURE_ID
    return tokenizer


def sight_processor() -> transformers.PaddleOCRVLProcessor:
    """Return what does for Qwen's pictures and texts the same as Qwen2VLProcessor and Qwen3VLProcessor.

    Those hold a processor of videos too, and so cannot be made without torchvision.
    """
    pictures = transformers.Qwen2VLImageProcessorPil(
        patch_size=PATCH, size={"shortest_edge": (2 * PATCH) ** 2, "longest_edge": (4 * PATCH) ** 2}
    )
    return transformers.PaddleOCRVLProcessor(pictures, sight_tokenizer(), chat_template=CHAT)


def language_model(num_layers: int, **settings: Any) -> dict[str, Any]:
    """Return what configs of tiny language models have in common."""
    return {
        "vocab_size": 384,
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        **settings,
    }


def vision(*, image_size: int, patch_size: int) -> transformers.CLIPVisionModel:
    return transformers.CLIPVisionModel(_vision_config(image_size, patch_size))


def projected_vision(*, image_size: int, patch_size: int) -> transformers.CLIPVisionModelWithProjection:
    return transformers.CLIPVisionModelWithProjection(_vision_config(image_size, patch_size))


def image_processor(*, image_size: int) -> transformers.CLIPImageProcessor:
    crop = {"height": image_size, "width": image_size}
    return transformers.CLIPImageProcessor(size={"shortest_edge": image_size}, crop_size=crop)


def _clip_config(width: int) -> transformers.CLIPTextConfig:
    ends = len(_clip_vocabulary()) - 1
    return transformers.CLIPTextConfig(
        **READER | {"vocab_size": ends + 1, "hidden_size": width},
        projection_dim=width,
        bos_token_id=ends - 1,
        eos_token_id=ends,
        pad_token_id=ends,
    )


def _vision_config(image_size: int, patch_size: int) -> transformers.CLIPVisionConfig:
    sizes = SIGHT | {"num_hidden_layers": 2, "image_size": image_size, "patch_size": patch_size}
    return transformers.CLIPVisionConfig(**sizes, projection_dim=IMAGE_WIDTH)


def _clip_vocabulary() -> dict[str, int]:
    """Return ids for single bytes, bytes that end a word, and CLIP's two marks: a CLIP without merges."""
    alphabet = _byte_alphabet()
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}


def _byte_alphabet() -> list[str]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2's byte alphabet ...
    spare = (chr(256 + i) for i in range(256 - len(printable)))  # ... and its stand-ins for the rest
    return [chr(b) if b in printable else next(spare) for b in range(256)]


def byte_parts(text_encoder: Any, vae: Any, transformer: Any, scheduler: Any) -> dict[str, Any]:
    """Return the parts of a pipeline that reads its prompt byte by byte."""
    return {
        "tokenizer": ByT5Tokenizer(),
        "text_encoder": text_encoder,
        "vae": vae,
        "transformer": transformer,
        "scheduler": scheduler,
    }


def hunyuan_autoencoder() -> diffusers.AutoencoderKLHunyuanVideo:
    return diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2
    )


def template_tokenizer(template: str, count: int) -> ByT5Tokenizer:
    """Return one that makes `count` tokens of what stands before the prompt in `template`, and no more.

    Pipelines cut these off by their number: with more of them they would cut off the prompt.
    """
    instruction, _, _ = template.partition("{}")
    ends = [len(instruction) * i // count for i in range(count + 1)]
    pieces = [instruction[start:end] for start, end in itertools.pairwise(ends)]
    tokenizer = ByT5Tokenizer()
    tokenizer.add_tokens(sorted(set(pieces)))
    return tokenizer


# A chat as it is: the words of its messages one after the other.
BARE_CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
