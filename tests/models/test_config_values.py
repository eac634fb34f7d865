"""Config values are judged by the class that reads them: what one takes as a list is a number to another."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.specs.config_values import check_values
from framefleet.pipeline.model.specs.spec import inspect_model
from tests.tiny import tiny


def judge(made: type, **config: Any) -> None:
    component = "scheduler" if issubclass(made, diffusers.SchedulerMixin) else "transformer"
    check_values({component: config}, {component: ("diffusers", made.__name__)}, "here")


def test_no_class_of_diffusers_is_refused_with_its_own_defaults() -> None:
    configurable = diffusers.ModelMixin | diffusers.SchedulerMixin
    exported = [getattr(diffusers, name, None) for name in dir(diffusers)]
    classes = [made for made in exported if isinstance(made, type) and issubclass(made, configurable)]
    for made in classes:
        given = inspect.signature(made.__init__).parameters.values()  # type: ignore[misc]
        judge(made, **{p.name: p.default for p in given if p.default is not inspect.Parameter.empty})
    assert len(classes) > 150


def test_a_key_is_what_its_own_class_takes_by_that_name() -> None:
    judge(diffusers.UVit2DModel, block_out_channels=768)
    judge(diffusers.AutoencoderKLLTX2Video, spatio_temporal_scaling=True)
    for made in (diffusers.UNet2DConditionModel, diffusers.FluxTransformer2DModel):
        with pytest.raises(ModelError, match="but must be a list of up to 16"):
            judge(made, block_out_channels=768)
    with pytest.raises(ModelError, match="but must be a list"):
        check_values({"transformer": {"dim_mult": 4}}, {"transformer": ("nowhere", "Nothing")}, "here")


@pytest.mark.parametrize("value", [0, -32, 10**12, True, "32", 32.5, float("nan"), [[32]], {}])
def test_a_key_that_is_one_number_is_bounded_as_one_of_a_list(value: Any) -> None:
    with pytest.raises(ModelError, match="but must be a whole number from 1") as caught:
        judge(diffusers.UVit2DModel, block_out_channels=value)
    assert caught.value.fix


def test_a_model_whose_autoencoder_has_another_name_has_its_size_and_step(tmp_path: Path) -> None:
    spec = inspect_model(tiny("amused"))
    assert (spec.default_height, spec.default_width, spec.size_multiple) == (16, 16, 8)
    folder = shutil.copytree(tiny("amused"), tmp_path / "amused")
    file = folder / "vqvae" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"block_out_channels": [16] * 5}))
    deeper = inspect_model(folder)
    assert (deeper.default_height, deeper.size_multiple) == (32, 16)
