"""On a GPU rows of different LoRAs share forwards and are what plain diffusers renders with their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.loras import clips_and_expected, save_lora

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("model", ["wan", "cogvideox", "sd"])
def test_rows_of_any_loras_and_weights_are_those_of_plain_diffusers(
    model: str, dtype: str, tmp_path: Path
) -> None:
    files = {name: save_lora(model, name, tmp_path / name) for name in ("style", "detail")}
    clips, expected = clips_and_expected(model, dtype, files, device="cuda")
    assert {clip.request.seed: clip.frames_sha256 for clip in clips} == expected
    assert np.mean([clip.batch_size for clip in clips]) > 1
