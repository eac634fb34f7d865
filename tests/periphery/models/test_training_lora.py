"""A LoRA that was trained is a file that plain diffusers loads, and that rows use beside others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from framefleet import Clip, load_model
from framefleet.pipeline.errors import JobError
from framefleet.plugins.ports.crafter.pipeline_videocrafter import VideoCrafterPipeline
from framefleet.plugins.train.freezing import add_lora, choose_parameters, lora_file
from framefleet.plugins.train.job import LoraSettings
from tests.denoiser_rows import pipe_of, prepared, task_of
from tests.loras import lora_rows, plain_digest, plain_pipe
from tests.tiny import tiny
from tests.training_jobs import descend
from tests.unaudited import unaudited

LORA = LoraSettings(rank=2, alpha=6.0)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a LoRA of tiny Wan that was trained for some steps."""
    task = task_of(pipe_of("wan"), "wan", lora=LORA)
    chosen = choose_parameters(task.trained, lora=True)
    assert all(".lora_" in name for name in chosen)
    before = {name: w.clone() for name, w in task.trained["transformer"].named_parameters()}
    first, *_, last = descend(task, prepared(task, "wan", count=2), chosen.values(), steps=5)
    assert last < 0.98 * first
    changed = {
        name for name, w in task.trained["transformer"].named_parameters() if not torch.equal(w, before[name])
    }
    assert changed and all(".lora_" in name for name in changed)
    path = tmp_path_factory.mktemp("lora") / "ball.safetensors"
    save_file(lora_file(task.trained, LORA), path)
    return path


def test_rows_with_a_trained_lora_are_rendered_beside_base_rows(file: Path) -> None:
    table = lora_rows("wan", [None, "ball", None, "ball"])
    loaded = load_model(tiny("wan"), dtype="fp32", loras={"ball": file})
    clips = [clip for clip in unaudited(loaded).render(table) if isinstance(clip, Clip)]
    bare, adapted = plain_pipe("wan", torch.float32), plain_pipe("wan", torch.float32, {"ball": file})
    expected = {
        row.seed: plain_digest(
            *((adapted, row, {"ball": 1.0}) if "lora" in row.arguments else (bare, row, {}))
        )
        for row in table
    }
    assert {clip.request.seed: clip.frames_sha256 for clip in clips} == expected
    assert plain_digest(bare, table[1], {}) != expected[1]


def test_the_file_does_what_the_trained_adapters_did(file: Path) -> None:
    """Alpha is three times the rank here, and the file says nothing of it."""
    task = task_of(pipe_of("wan"), "wan", lora=LORA)
    (row,) = prepared(task, "wan", count=1)
    for name, weight in task.trained["transformer"].named_parameters():
        if ".lora_B." in name:
            weight.data = torch.ones_like(weight) * 0.1
    trained = predicted(task, row)
    save_file(lora_file(task.trained, LORA), file.parent / "made.safetensors")
    plain = plain_pipe("wan", torch.float32, {"made": file.parent / "made.safetensors"})
    torch.testing.assert_close(predicted(task_of(plain, "wan"), row), trained)


def predicted(task: Any, row: dict[str, Tensor]) -> Tensor:
    return task.loss([row], torch.Generator().manual_seed(0)).detach()


def test_the_start_depends_on_the_seed_alone() -> None:
    starts: list[dict[str, nn.Parameter]] = []
    for _ in range(2):
        torch.rand(1)
        task = task_of(pipe_of("wan"), "wan", lora=LORA, seed=4)
        starts.append(choose_parameters(task.trained, lora=True))
    assert all(torch.equal(w, starts[1][name]) for name, w in starts[0].items())


def test_targets_that_are_no_layers_are_refused_with_those_that_are() -> None:
    with pytest.raises(JobError, match=r"'to_x'[^$]*to_out.0, to_q"):
        task_of(pipe_of("wan"), "wan", lora=LoraSettings(targets=["to_q", "to_x"]))


def test_a_pipeline_that_loads_no_loras_trains_none() -> None:
    with pytest.raises(JobError, match="VideoCrafterPipeline takes no LoRAs"):
        add_lora(VideoCrafterPipeline.__new__(VideoCrafterPipeline), {}, LORA, seed=0)
