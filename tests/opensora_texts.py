"""Folders of T5 and CLIP in small, as their authors ship them: T5 with its decoder, CLIP with its eye."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import ByT5Tokenizer, CLIPConfig, CLIPModel, T5Config, T5ForConditionalGeneration

from tests.tinies.encoders import TEXT_WIDTH, clip, clip_tokenizer

_VISION = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}


def write_texts(folder: Path) -> None:
    """Write both below `folder`, where Open-Sora v2 has them; CLIP's weights as a pickle beside, too."""
    t5, text = folder / "google" / "t5-v1_1-xxl", folder / "openai" / "clip-vit-large-patch14"
    config = T5Config(vocab_size=384, d_model=TEXT_WIDTH, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        T5ForConditionalGeneration(config).save_pretrained(t5, max_shard_size="30KB")
        towers = CLIPModel(CLIPConfig(text_config=clip().config.to_dict(), vision_config=_VISION))
    ByT5Tokenizer().save_pretrained(t5)
    towers.save_pretrained(text)
    torch.save(towers.state_dict(), text / "pytorch_model.bin")
    clip_tokenizer().save_pretrained(text)
