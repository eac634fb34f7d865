"""On a GPU a text encoder is there only while it is called, and frames are those of one that never leaves."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
import torch

from framefleet import Clip, Model, Renderer, Request, Store, load_model
from framefleet.pipeline.outputs.clips import Outcome
from tests.tiny import SMALLEST, tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

NAMES = ("wan", "wan_moe", "cogvideox", "ltx", "hunyuan", "animatediff", "sd", "sdxl", "sd3", "flux")


def _requests(name: str) -> list[Request]:
    prompts = ("a red ball", "一只猫在海边奔跑", "a red ball")
    return [
        Request(arguments={**SMALLEST[name], "prompt": prompt}, seed=seed)
        for seed, prompt in enumerate(prompts)
    ]


def _devices(model: Model) -> set[str]:
    return {
        weight.device.type for encoder in model.text_encoders().values() for weight in encoder.parameters()
    }


def _frames(outcomes: list[Outcome]) -> dict[int, str]:
    assert all(isinstance(outcome, Clip) for outcome in outcomes), outcomes
    return {clip.request.seed: clip.frames_sha256 for clip in outcomes if isinstance(clip, Clip)}


def _steps(model: Model, name: str, store: Store) -> dict[int, str]:
    """Render step by step; whenever a step has ended, the encoder is gone and the pipeline stays."""
    renderer, outcomes = Renderer(model, embeddings=store), []
    for request in _requests(name):
        renderer.submit(request, str(request.seed))
    while renderer.num_active:
        outcomes += renderer.step()
        assert _devices(model) == {"cpu"}
        assert model.pipe._execution_device.type == "cuda"
    renderer.cancel()
    assert _devices(model) == {"cuda"}
    return _frames(outcomes)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_frames_are_equal_though_the_encoder_comes_and_goes(name: str, dtype: str, tmp_path: Path) -> None:
    model, store = load_model(tiny(name), dtype=dtype), Store(str(tmp_path))
    off = _frames(list(Renderer(model).render(_requests(name))))
    assert _steps(model, name, store) == off
    time.sleep(0.5)  # the entries are written beside
    assert store.list("embeddings")
    assert _steps(model, name, store) == off


def test_its_memory_is_free_while_rows_are_denoised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = load_model(tiny("wan"))
    (encoder,) = model.text_encoders().values()
    size = sum(weight.nbytes for weight in [*encoder.parameters(), *encoder.buffers()])
    before = torch.cuda.memory_allocated()
    renderer = Renderer(model, embeddings=Store(str(tmp_path)))
    with caplog.at_level(logging.INFO, logger="framefleet.pipeline.render.text_encoders"):
        renderer.step()
    assert before - torch.cuda.memory_allocated() >= size
    assert caplog.messages == [f"text_encoder left cuda and freed {size:,} bytes"]
