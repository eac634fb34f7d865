"""Prompts get the tokens of CLIP that the originals give them, and so their clips; also in a plain script.

The ids are what open_clip 2.22.0, and transformers 4.39.3 with ftfy 6.3.1, made of these prompts.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPTokenizer

from framefleet.plugins.ports.crafter import pipeline_base as open_clip
from framefleet.plugins.ports.crafter.convert import clip_tokenizer
from framefleet.plugins.ports.crafter.pipeline_videocrafter import VideoCrafterPipeline
from framefleet.plugins.ports.opensora.pipeline_opensora import OpenSoraPipeline, clip_ids
from tests.crafter import SMALLEST, TEXT, crafter
from tests.tiny import tiny

_OPEN_CLIP, _TRANSFORMERS_4 = json.loads(
    (Path(__file__).parents[2] / "references" / "clip_tokens.json").read_text()
).values()


@functools.cache
def openais_tokenizer() -> CLIPTokenizer:
    """Return one that pads with the end, as the one that Open-Sora ships."""
    own = json.loads(clip_tokenizer().backend_tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in own["merges"]]
    return CLIPTokenizer(vocab=own["vocab"], merges=merges, model_max_length=77)


def padded(ids: list[int], padding: int) -> list[int]:
    return ids + [padding] * (77 - len(ids))


@pytest.mark.parametrize("prompt", list(_OPEN_CLIP))
def test_a_prompt_of_videocrafter_has_the_ids_of_open_clip(prompt: str) -> None:
    (ids,) = open_clip.prompt_ids(clip_tokenizer(), [prompt]).tolist()
    assert ids == padded(_OPEN_CLIP[prompt], 0)


@pytest.mark.parametrize("prompt", list(_TRANSFORMERS_4))
def test_a_prompt_of_open_sora_has_the_ids_of_the_authors(prompt: str) -> None:
    (ids,) = clip_ids(openais_tokenizer(), [prompt]).tolist()
    assert ids == padded(_TRANSFORMERS_4[prompt], 49407)


def test_prompts_that_are_cleaned_to_one_make_one_clip_also_as_negative_ones() -> None:
    pipe = VideoCrafterPipeline.from_pretrained(crafter(TEXT))  # as a script without framefleet does

    def clip(**prompts: Any) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return pipe(**prompts, **SMALLEST, generator=generator, output_type="latent").frames

    plain = clip(prompt="a cat's fire & smoke", negative_prompt="tom's fire")
    assert torch.equal(plain, clip(prompt="A cat\u2019s \ufb01re &amp; smoke ", negative_prompt="tom's fire"))
    negative = "\uff34om\u2019s \ufb01re"
    assert torch.equal(plain, clip(prompt="a cat's fire & smoke", negative_prompt=negative))
    assert not torch.equal(plain, clip(prompt="a cat's fire & smoke", negative_prompt="smoke"))


def test_open_soras_clip_sees_cleaned_prompts() -> None:
    pipe = OpenSoraPipeline.from_pretrained(tiny("opensora"))
    with torch.no_grad():
        plain, same, other = (
            pipe.encode_prompt(prompt)[1] for prompt in ("a cat's fire", "A cat\u2019s \ufb01re", "a cat")
        )
    assert torch.equal(plain, same) and not torch.equal(plain, other)
