"""CogVideoX, VideoCrafter and DynamiCrafter are fine-tuned by the same command as Wan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from framefleet import Store, train
from framefleet.plugins.train.reports import read_losses
from tests.crafter import MOTION, TEXT, crafter
from tests.tiny import tiny
from tests.training_jobs import training_job, write_clips

# Of each the model, the component, what of it is frozen, and the size.
FAMILIES = {
    "cogvideox": ("transformer", "transformer_blocks.0", [9, 16, 16]),
    TEXT: ("unet", "down_blocks", [3, 64, 64]),
    MOTION: ("unet", "down_blocks", [3, 64, 64]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("families")
    write_clips(path, count=2, size=(9, 64, 64))
    return path


@pytest.mark.parametrize("name", FAMILIES)
def test_the_loss_falls_and_frozen_layers_keep_their_bits(name: str, folder: Path) -> None:
    component, frozen, size = FAMILIES[name]
    model = tiny(name) if name == "cogvideox" else crafter(name)
    settings = {"sizes": [size], "freeze": [f"{component}.{frozen}"], "batch_size": 1, "ema": None}
    first = losses(folder, f"{name}-first", model, steps=2, **settings)
    trained = folder / f"{name}-first/model"
    (again,) = losses(folder, f"{name}-again", trained, steps=1, **settings)  # equal rows, equal noise
    assert again < first[0]
    before, after = (weights(path / component) for path in (model, trained))
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    kept = {key for key in before if key.startswith(f"{frozen}.")}
    assert kept and changed and not changed & kept


def losses(folder: Path, output: str, model: Path, **settings: Any) -> list[float]:
    """Train; return the loss of every step."""
    job = yaml.safe_load(training_job(folder, output, **settings).read_text())
    del job["defaults"]
    train(job | {"model": str(model)})
    return [step.loss for step in read_losses(Store(str(folder / output)))]


def weights(component: Path) -> dict[str, torch.Tensor]:
    (file,) = component.glob("*.safetensors")
    return load_file(file)
