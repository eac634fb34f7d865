"""Rows of several LoRAs in one forward, beside each option that changes how the model computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import framefleet
from tests.loras import save_lora
from tests.tiny import SMALLEST, tiny
from tests.unaudited import unaudited

OPTIONS: dict[str, dict[str, Any]] = {
    "cast": {"layerwise_casting": "fp8_e4m3"},
    "offload": {"offload": "group"},
    "torchao": {"quantization": {"backend": "torchao", "type": "int8_weight_only"}},
    "quanto": {"quantization": {"backend": "quanto", "type": "int8"}},
}


@pytest.mark.parametrize("name", list(OPTIONS))
def test_rows_of_different_loras_share_forwards_and_are_those_of_a_row_alone(
    name: str, tmp_path: Path
) -> None:
    lora = save_lora("wan", "style", tmp_path)
    asked = ("none", "style:0.8", "style", "none")
    rows = [
        framefleet.Request(arguments={**SMALLEST["wan"], "prompt": "a cat", "lora": given}, seed=seed)
        for seed, given in enumerate(asked)
    ]

    def rendered(max_rows: int) -> dict[str, tuple[str, float]]:
        model = framefleet.load_model(tiny("wan"), loras={"style": lora}, **OPTIONS[name])
        batching = framefleet.Batching(max_rows=max_rows, min_gain=0)
        clips = list(unaudited(model, batching).render(rows))
        assert all(isinstance(clip, framefleet.Clip) for clip in clips), clips
        return {clip.row_id: (clip.frames_sha256, clip.batch_size) for clip in clips}  # type: ignore[union-attr]

    together, alone = rendered(4), rendered(1)
    assert {row: digest for row, (digest, _) in together.items()} == {
        row: digest for row, (digest, _) in alone.items()
    }
    assert all(size > 2 for _, size in together.values())
    assert len({digest for digest, _ in together.values()}) == 4
