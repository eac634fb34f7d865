"""From folders of T5 and CLIP, as their authors ship them, to a pipeline's text encoders and tokenizers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerBase,
    T5Config,
    T5EncoderModel,
)

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.plugins.ports.conversion.plan import Network, Origin

Files = Mapping[str, Mapping[str, Tensor]]  # file: its tensors by name, without values
_FIX = (
    "put the folders of google/t5-v1_1-xxl and openai/clip-vit-large-patch14 into it, with their weights, "
    "config.json and tokenizers"
)
# T5's decoder and a second name of its embeddings, CLIP's eye, and what older libraries stored.
_UNNEEDED = re.compile(
    r"(decoder|lm_head|vision_model|visual_projection|text_projection|logit_scale)\b"
    r"|encoder\.embed_tokens\.weight$|.*\.position_ids$"
)
_EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")  # two names of T5's


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """One text encoder. ignored: names of tensors in its folder that it does not need."""

    network: Network
    tokenizer: PreTrainedTokenizerBase
    ignored: frozenset[str]


def text_parts(path: Path, files: Files) -> dict[str, TextPart]:
    """Return CLIP as `text_encoder` and T5 as `text_encoder_2`. Raises ModelError when one is not there."""
    folders = {str(Path(file).parent) for file in files}
    kinds = {folder: _model_type(path / folder / "config.json") for folder in sorted(folders)}
    return {
        "text_encoder": _part(path, files, kinds, ("clip", "clip_text_model"), _clip),
        "text_encoder_2": _part(path, files, kinds, ("t5",), _t5),
    }


def _model_type(config: Path) -> str | None:
    try:
        content = parse_json(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a folder of something else
        return None
    return content.get("model_type") if isinstance(content, dict) else None


def _part(
    path: Path,
    files: Files,
    kinds: Mapping[str, str | None],
    wanted: tuple[str, ...],
    build: Callable[[str], Any],
) -> TextPart:
    folder = next((folder for folder, kind in kinds.items() if kind in wanted), None)
    if folder is None:
        raise ModelError(f"{path} holds no {wanted[0].upper()} text encoder", _FIX)
    own = {file: tensors for file, tensors in files.items() if str(Path(file).parent) == folder}
    # The checkpoint's name of each tensor; where weights are there twice, of the safetensors.
    ordered = sorted(own, key=lambda file: file.endswith(".safetensors"))
    tensors = {name: f"{file}:{name}" for file in ordered for name in own[file]}
    with torch.device("meta"):
        module = build(str(path / folder))
    origins = {}
    for name in module.state_dict():
        stored = _stored(name, tensors)
        origins[name] = Origin(name=tensors.get(stored, f"{folder}:{stored}"))
    tokenizer = _tokenizer(path / folder, module.config.vocab_size)
    network = Network(module=module, origins=origins)
    # Tensors of no use here: of the model's other half, or there twice.
    chosen = set(tensors.values())
    names = {f"{file}:{name}": name for file in own for name in own[file]}
    return TextPart(
        network=network,
        tokenizer=tokenizer,
        ignored=frozenset(
            full for full, name in names.items() if full not in chosen or _UNNEEDED.match(name)
        ),
    )


def _tokenizer(folder: Path, vocab_size: int) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:  # files of it are missing
        raise ModelError(f"{folder} holds no tokenizer: {error}", _FIX) from error
    # Where the vocabulary is missing transformers 5 makes a tokenizer of special tokens alone.
    if len(tokenizer) < vocab_size / 2:
        raise ModelError(f"{folder} holds no tokenizer for {vocab_size} tokens", _FIX)
    return tokenizer


def _stored(name: str, tensors: Mapping[str, str]) -> str:
    """Return what a tensor of an encoder is called among those of a whole model."""
    if name in _EMBEDDINGS:
        return next((stored for stored in _EMBEDDINGS if stored in tensors), name)
    is_whole = any(stored.startswith("text_model.") for stored in tensors)
    return f"text_model.{name}" if is_whole else name


def _clip(folder: str) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig.from_pretrained(folder, local_files_only=True))


def _t5(folder: str) -> T5EncoderModel:
    return T5EncoderModel(T5Config.from_pretrained(folder, local_files_only=True))
