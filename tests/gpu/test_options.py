"""Options that need a GPU: components that take turns on it, streamed groups, and its attention kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import WanPipeline, attention_backend
from diffusers.hooks import apply_group_offloading

from framefleet import Batching, Clip, Renderer, Request, load_model
from framefleet.pipeline.model.options.attention import candidates
from framefleet.pipeline.model.options.offload import modules_of
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from tests.tiny import SMALLEST, tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def rendered(**options: Any) -> tuple[Any, list[Clip]]:
    """A model, and its clips of four mixed rows."""
    model = load_model(tiny("wan"), dtype="bf16", device="cuda", **options)
    arguments = {**SMALLEST["wan"], "prompt": "a red ball"}
    rows = [Request(arguments=arguments | {"num_inference_steps": 3 + i}, seed=i) for i in range(4)]
    clips = [clip for clip in Renderer(model, Batching(min_gain=0)).render(rows) if isinstance(clip, Clip)]
    assert len(clips) == len(rows)
    return model, clips


def by_hand(clips: list[Clip], prepare: Callable[[Any], Any]) -> list[str]:
    pipe = WanPipeline.from_pretrained(tiny("wan"), dtype=torch.bfloat16, use_safetensors=True)
    prepare(pipe)
    rows = [clip.request for clip in clips]
    outputs = [pipe(**row.arguments, generator=row.generator(), output_type="np") for row in rows]
    return [frames_sha256(to_frames(output)) for output in outputs]


def test_components_take_turns_on_the_gpu() -> None:
    model, clips = rendered(offload="model")
    there = [name for name, part in modules_of(model.pipe).items() if next(part.parameters()).is_cuda]
    assert len(there) == 1
    assert [clip.frames_sha256 for clip in clips] == by_hand(
        clips, lambda pipe: pipe.enable_model_cpu_offload(device="cuda")
    )


@pytest.mark.parametrize("stream", [False, True])
def test_groups_of_blocks_come_and_go(stream: bool) -> None:
    def prepare(pipe: Any) -> None:
        apply_group_offloading(
            pipe.transformer, onload_device="cuda", num_blocks_per_group=1, use_stream=stream
        )
        for part in (pipe.text_encoder, pipe.vae):
            apply_group_offloading(part, onload_device="cuda", offload_type="leaf_level")

    model, clips = rendered(offload={"type": "group", "stream": stream})
    assert not any(weight.is_cuda for weight in model.pipe.transformer.blocks.parameters())
    assert [clip.frames_sha256 for clip in clips] == by_hand(clips, prepare)


def test_auto_attention_is_one_of_the_kernels_of_this_gpu() -> None:
    def prepare(pipe: Any) -> None:
        pipe.to("cuda")
        with attention_backend():
            pipe.transformer.set_attention_backend(name)

    _, clips = rendered(attention="auto")
    (name,) = {clip.environment["attention"] for clip in clips}
    assert name in candidates("cuda")
    assert [clip.frames_sha256 for clip in clips] == by_hand(clips, prepare)
