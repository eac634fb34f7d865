"""A dtype for each component: really loaded, bit-equal to diffusers' own form of it, and replayed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import framefleet
from framefleet import ModelError, Store, replay, replay_script
from framefleet.pipeline.outputs.parts.parts import find_record
from tests.here import rendered, run_script
from tests.tiny import tiny

MIXED: dict[str, Any] = {"default": "bf16", "vae": "fp32"}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """Rows of a folder that the preset of Wan 2.1 1.3B takes for its own, in the dtypes of that preset."""
    return rendered(tmp_path_factory.mktemp("mixed"), "wan", build_as="wan_known", dtype=MIXED)


def test_every_component_is_loaded_in_its_dtype() -> None:
    pipe = framefleet.load_model(tiny("wan_known"), dtype=MIXED).pipe
    assert {parameter.dtype for parameter in pipe.vae.parameters()} == {torch.float32}
    for module in (pipe.transformer.blocks, pipe.text_encoder):
        assert {parameter.dtype for parameter in module.parameters()} <= {torch.bfloat16, torch.float32}
    assert (pipe.transformer.dtype, pipe.text_encoder.dtype) == (torch.bfloat16, torch.bfloat16)


def test_a_record_holds_what_was_asked_for_and_what_it_came_to(output: tuple[str, list[str]]) -> None:
    record = find_record(Store(output[0]), output[1][0])
    assert json.loads(record.numerics)["dtype"] == MIXED
    assert json.loads(record.environment)["dtype"] == MIXED
    claim = json.loads(Store(output[0]).read("job.json"))
    assert (claim["preset"], claim["numerics"]["dtype"]) == ("wan2.1-t2v-1.3b", MIXED)
    assert record.fps == 16


def test_a_row_is_the_same_in_a_replay_and_by_a_script_that_loads_every_component_in_its_dtype(
    output: tuple[str, list[str]],
) -> None:
    replayed = replay(output[0], output[1][1])
    assert replayed.is_equal and replayed.differences == ()
    script = replay_script(output[0], output[1][0])
    assert "dtype={'default': torch.bfloat16, 'vae': torch.float32}, " in script
    assert run_script(script).startswith("the same frames: ")
    # With one dtype for all, the frames are others: the mapping is not for show.
    other = script.replace("{'default': torch.bfloat16, 'vae': torch.float32}", "torch.bfloat16")
    with pytest.raises(SystemExit, match="other frames: "):
        run_script(other)


def test_a_component_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="dtype names 'image_encoder'"):
        framefleet.load_model(tiny("wan"), dtype={"image_encoder": "fp32"})
    with pytest.raises(ModelError, match="dtype names 'image_encoder'"):
        rendered(tmp_path, "wan", dtype={"image_encoder": "fp32"})


def test_on_a_cpu_auto_is_fp32_for_a_known_model_too() -> None:
    model = framefleet.load_model(tiny("wan_known"), device="cpu")
    assert model.spec.preset is not None
    assert model.environment["dtype"] == "fp32"
    assert model.pipe.transformer.dtype == torch.float32
