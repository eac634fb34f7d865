"""What needs a GPU: options, LoRAs and presets, the numbers of dtypes, and attention kernels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanPipeline, attention_backend
from diffusers.hooks import apply_group_offloading

from framefleet import Batching, Clip, Renderer, Request, load_model
from framefleet.pipeline.model.options.attention import candidates
from framefleet.pipeline.model.options.offload import modules_of
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from tests.loras import clips_and_expected, save_lora
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


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("model", ["wan", "cogvideox", "sd"])
def test_rows_of_any_loras_and_weights_are_those_of_plain_diffusers(
    model: str, dtype: str, tmp_path: Path
) -> None:
    files = {name: save_lora(model, name, tmp_path / name) for name in ("style", "detail")}
    clips, expected = clips_and_expected(model, dtype, files, device="cuda")
    assert {clip.request.seed: clip.frames_sha256 for clip in clips} == expected
    assert np.mean([clip.batch_size for clip in clips]) > 1


def test_auto_is_what_the_preset_says() -> None:
    model = load_model(tiny("wan_known"))
    assert model.environment["dtype"] == {"default": "bf16", "vae": "fp32"}
    assert (model.pipe.transformer.dtype, model.pipe.vae.dtype) == (torch.bfloat16, torch.float32)
    assert load_model(tiny("wan")).environment["dtype"] == "bf16"


def test_its_frames_are_those_of_a_plain_call() -> None:
    arguments = {**SMALLEST["wan"], "prompt": "a red ball", "guidance_scale": 5.0}
    request = Request(arguments=arguments, seed=3)
    (clip,) = Renderer(load_model(tiny("wan_known"))).render([request])
    assert isinstance(clip, Clip)
    dtype = {"default": torch.bfloat16, "vae": torch.float32}
    pipe = WanPipeline.from_pretrained(tiny("wan_known"), dtype=dtype, use_safetensors=True).to("cuda")
    output = pipe(**clip.request.arguments, generator=request.generator(), output_type="np")
    assert frames_sha256(to_frames(output)) == clip.frames_sha256


def test_products_are_summed_in_one_piece_and_the_record_says_so() -> None:
    model = load_model(tiny("wan"), dtype="bf16")
    matmul = torch.backends.cuda.matmul
    assert model.environment["matmul"] == "no_split_k"
    assert torch.backends.cuda.preferred_blas_library() == torch._C._BlasBackend.Cublaslt
    assert not matmul.allow_bf16_reduced_precision_reduction
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_a_script_in_another_process_renders_the_same_frames(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="a job needs it")
    from framefleet.plugins.keep.replay.script import replay_script
    from tests.here import rendered

    output, row_ids = rendered(tmp_path, "wan", device="cuda", dtype="bf16")
    script = tmp_path / "again.py"
    script.write_text(replay_script(output, row_ids[1]))
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert run.stdout.startswith("the same frames: "), run.stderr
