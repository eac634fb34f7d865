"""From a checkpoint of VideoCrafter or DynamiCrafter to how it becomes a pipeline folder."""

from __future__ import annotations

import functools
import gzip
import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from framefleet.plugins.ports.conversion.checkpoint import Checkpoint
from framefleet.plugins.ports.conversion.plan import Conversion, settled
from framefleet.plugins.ports.crafter import encoder_keys as keys
from framefleet.plugins.ports.crafter.parts import (
    ENCODERS,
    PARTS,
    TEXT,
    UNET,
    VISION,
    WHOLE_CLIP,
    check_widths,
    network_parts,
    with_given,
)
from framefleet.plugins.ports.crafter.scheduler import VideoCrafterDDIMScheduler
from framefleet.plugins.ports.crafter.variants import SCALES, chosen_variant

_PIXELS = 8  # of one latent, in all of them
# Buffers of the noise schedule, which the scheduler computes.
_BUFFERS = (
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "logvar",
    "scale_factor",
    SCALES,
)
_OF_TEXT = ("logit_scale", "text_projection", "attn_mask")  # that open_clip has and the encoder does not need
_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)$")
_MERGES = Path(__file__).with_name("clip_merges.txt.gz")


def convert_crafter(
    checkpoint: Checkpoint, *, variant: str | None, given: Mapping[str, Any]
) -> Conversion | None:
    """Return the conversion, or None for a checkpoint of another family."""
    if not any(name.startswith(f"{UNET}init_attn.") for name in checkpoint.shapes):
        return None
    place = str(checkpoint.path)
    unet = PARTS["unet"].inferred("unet", checkpoint)
    parts = with_given(network_parts(unet, checkpoint), checkpoint)
    configs = {name: part.inferred(name, checkpoint) for name, part in parts.items()}
    chosen = chosen_variant(unet, checkpoint, variant)
    size = [length // _PIXELS for length in chosen.size]
    configs["unet"] |= {"sample_size": size, "default_fps": chosen.default_fps}
    configs["scheduler"] = {
        key: value
        for key, value in VideoCrafterDDIMScheduler(**chosen.scheduler).config.items()
        if not key.startswith("_")
    }
    configs = settled(configs, given, place=place)
    check_widths(parts, configs, checkpoint)
    networks = {name: part.network(name, configs[name], checkpoint) for name, part in parts.items()}
    scheduler = VideoCrafterDDIMScheduler(**configs["scheduler"])
    used = {name for network in networks.values() for o in network.origins.values() for name in o.names}
    depth, encoders = configs["text_encoder"]["num_hidden_layers"], checkpoint.parts & ENCODERS.keys()
    return Conversion(
        variant=chosen.name,
        pipeline=chosen.pipeline,
        networks=networks,
        others={"tokenizer": clip_tokenizer(), "scheduler": scheduler},
        ignored=frozenset(n for n in checkpoint.shapes if _is_unused(n, depth, encoders)) - used,
    )


def _is_unused(name: str, depth: int, given: Set[str]) -> bool:
    """Whether it is a tensor of the originals that nothing here needs.

    depth: blocks of our text encoder. given: encoders that were given, which go before the checkpoint's own
    and may hold more.
    """
    if name in _BUFFERS or name == f"{VISION}proj":
        return True
    if name.startswith(tuple(start for encoder in given for start in (f"{encoder}:", ENCODERS[encoder]))):
        return True
    if name.startswith(WHOLE_CLIP):  # CLIP as a whole, whose text tower the image encoder does not need
        inner, depth = name.removeprefix(WHOLE_CLIP), 0
        return inner in (*_OF_TEXT, *keys.CLIP_TEXT.values()) or _is_block_beyond(inner, depth)
    inner = name.removeprefix(TEXT)
    return inner != name and (inner in _OF_TEXT or _is_block_beyond(inner, depth))


def _is_block_beyond(name: str, depth: int) -> bool:
    """Whether it is of a block of a text tower behind the last that is used: "penultimate" leaves one."""
    block = _BLOCK.match(name)
    return block is not None and int(block[1]) >= depth and keys.is_block_tensor(block[2])


@functools.cache  # a second to build
def clip_tokenizer() -> CLIPTokenizer:
    """Return the tokenizer of 49,408 tokens, each time the same one.

    It pads with token 0, "!", where OpenAI's pads with the end.
    """
    merges = [
        (left, right)
        for line in gzip.decompress(_MERGES.read_bytes()).decode().splitlines()
        for left, right in [line.split(" ")]
    ]
    alphabet = list(
        bytes_to_unicode().values()
    )  # GPT-2's letter for each byte, in the order of the first tokens
    joined = [left + right for left, right in merges]
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *joined, "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token="!", model_max_length=77)
