"""A LoRA that was trained is a file that plain diffusers and jobs load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from framefleet import load_model
from framefleet.pipeline.errors import JobError
from framefleet.plugins.ports.crafter.pipeline_videocrafter import VideoCrafterPipeline
from framefleet.plugins.train.freezing import add_lora, choose_parameters, lora_file
from framefleet.plugins.train.job import LoraSettings
from tests.denoiser_rows import pipe_of, prepared, task_of
from tests.loras import plain_pipe
from tests.tiny import tiny
from tests.training_jobs import descend

LORA = LoraSettings(rank=2, alpha=6.0)


def test_a_training_changes_the_layers_of_the_lora_alone() -> None:
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


def test_the_file_does_what_the_trained_adapters_did_and_rows_use_it(tmp_path: Path) -> None:
    """Alpha is three times the rank here, and the file says nothing of it."""
    task, file = task_of(pipe_of("wan"), "wan", lora=LORA), tmp_path / "made.safetensors"
    (row,) = prepared(task, "wan", count=1)
    for name, weight in task.trained["transformer"].named_parameters():
        if ".lora_B." in name:
            weight.data = torch.ones_like(weight) * 0.1
    trained = predicted(task, row)
    save_file(lora_file(task.trained, LORA), file)
    plain = plain_pipe("wan", torch.float32, {"made": file})
    torch.testing.assert_close(predicted(task_of(plain, "wan"), row), trained)
    load_model(tiny("wan"), loras={"made": file})


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
