"""LoRAs with biases, as distilled Wan models are published and as peft trains them, next to rows without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from framefleet import Batching, Clip, HalfDone, Renderer, load_model
from tests.lora_dialects import DIALECTS
from tests.loras import WEIGHTS, clips_and_expected, lora_rows, plain_pipe, save_lora
from tests.tiny import tiny
from tests.unaudited import unaudited


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return one with `diff_b`, and zeros for norms that add nothing; and one with peft's `lora_bias`."""
    folder = tmp_path_factory.mktemp("loras")
    layers = DIALECTS["original Wan"].layers(plain_pipe("wan", torch.float32))
    keys = {key: weight * 0.1 for layer in layers[::2] for key, weight in layer.items()}
    ups = {key: weight for key, weight in keys.items() if key.endswith(".lora_up.weight")}
    keys |= {key.replace("lora_up.weight", "diff_b"): weight[:, 0].clone() for key, weight in ups.items()}
    keys["diffusion_model.blocks.0.norm3.diff"] = torch.zeros(32)
    save_file(keys, folder / "distilled.safetensors")
    return {
        "style": folder / "distilled.safetensors",
        "detail": save_lora("wan", "detail", folder / "peft", lora_bias=True),
    }


@pytest.mark.parametrize("dtype", ["fp32", pytest.param("bf16", marks=pytest.mark.long)])
def test_rows_with_biases_are_those_of_plain_diffusers(dtype: str, files: dict[str, Path]) -> None:
    clips, expected = clips_and_expected("wan", dtype, files, device="cpu")
    assert {clip.request.seed: clip.frames_sha256 for clip in clips} == expected
    assert len({*expected.values()}) == len(expected)


def test_rows_with_biases_go_on_after_a_drain_with_equal_bits(files: dict[str, Path]) -> None:
    def renderer(max_rows: int) -> Renderer:
        model = load_model(tiny("wan"), dtype="fp32", loras=files)
        return unaudited(model, Batching(max_rows=max_rows, min_gain=0))

    def ended(renderer: Renderer, checkpoints: dict[str, bytes | None]) -> dict[str, str | None]:
        for row_id, checkpoint in checkpoints.items():
            renderer.submit(rows[row_id], row_id, checkpoint)
        clips: list[Any] = []
        while renderer.num_active:
            clips += renderer.step()
        return {clip.row_id: clip.frames_sha256 for clip in clips}

    first = renderer(5)
    rows = dict(first._check(row, at)[::-1] for at, row in enumerate(lora_rows("wan", list(WEIGHTS))))
    for row_id, row in rows.items():
        first.submit(row, row_id)
    outcomes = [outcome for _ in range(3) for outcome in first.step()] + first.drain()
    halves = {half.row_id: half.checkpoint for half in outcomes if isinstance(half, HalfDone)}
    under_way = [rows[row_id].arguments for row_id, checkpoint in halves.items() if checkpoint]
    assert {name for arguments in under_way for name in arguments.get("lora", ())} == {*files}
    clips = {clip.row_id: clip.frames_sha256 for clip in outcomes if isinstance(clip, Clip)}
    assert clips | ended(renderer(5), halves) == ended(renderer(1), dict.fromkeys(rows))
