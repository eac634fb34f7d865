"""LoRAs with biases, as distilled Wan models are published and as peft trains them, next to rows without."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from framefleet import Batching, Clip, HalfDone, Renderer, load_model
from framefleet.jobs.keep.replay.replay import replay
from framefleet.jobs.keep.replay.script import replay_script
from tests.here import render_here
from tests.jobs import job_values, prompt_rows, write_table
from tests.lora_dialects import DIALECTS
from tests.loras import WEIGHTS, clips_and_expected, lora_rows, plain_pipe, save_lora
from tests.rendered import run_script
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
def test_rows_with_biases_are_those_of_plain_diffusers_in_a_batch_and_alone(
    dtype: str, files: dict[str, Path]
) -> None:
    clips, expected = clips_and_expected("wan", dtype, files, device="cpu")
    assert {clip.request.seed: clip.frames_sha256 for clip in clips} == expected
    assert len({*expected.values()}) == len(expected)
    alone = load_model(tiny("wan"), dtype=dtype, loras=files)  # type: ignore[arg-type]
    rows = lora_rows("wan", list(WEIGHTS))
    again = list(unaudited(alone, Batching(max_rows=1)).render(rows))
    assert {clip.request.seed: clip.frames_sha256 for clip in again if isinstance(clip, Clip)} == {
        row.seed: expected[row.seed] for row in rows
    }


def test_rows_with_biases_go_on_after_a_drain_with_equal_bits(files: dict[str, Path]) -> None:
    rows = lora_rows("wan", list(WEIGHTS))
    _, expected = clips_and_expected("wan", "fp32", files, device="cpu")

    def renderer() -> Renderer:
        return unaudited(load_model(tiny("wan"), dtype="fp32", loras=files), Batching(max_rows=5, min_gain=0))

    first = renderer()
    for index, row in enumerate(rows):
        first.submit(*first._check(row, index))
    ended = [outcome for _ in range(3) for outcome in first.step()] + first.drain()
    halves = [one for one in ended if isinstance(one, HalfDone) and one.checkpoint]
    assert {name for half in halves for name in half.request.arguments.get("lora", ())} == {*files}
    second = renderer()
    for half in ended:
        if isinstance(half, HalfDone):
            second.submit(half.request, half.row_id, half.checkpoint)
    while second.num_active:
        ended += second.step()
    clips = [one for one in ended if not isinstance(one, HalfDone)]
    assert {clip.request.seed: clip.frames_sha256 for clip in clips if isinstance(clip, Clip)} == {
        row.seed: expected[row.seed] for row in rows
    }


def test_rows_with_biases_are_replayed(tmp_path: Path, files: dict[str, Path]) -> None:
    rows = [row | {"lora": "style+detail:0.5"} for row in prompt_rows(2)]
    values = job_values(write_table(tmp_path / "t.parquet", rows), tmp_path / "out")
    output, row_ids = render_here(values | {"loras": {name: str(file) for name, file in files.items()}})
    assert replay(output, row_ids[0]).is_equal
    assert run_script(replay_script(output, row_ids[0])).startswith("the same frames: ")
