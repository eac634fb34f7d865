"""`framefleet model convert`: tiny originals become folders that load; others are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from framefleet.pipeline.conversion.convert import convert
from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.registry import own_class
from framefleet.pipeline.specs.spec import inspect_model
from tests.commands import command
from tests.crafter_originals import UNETS, checkpoint

MODEL = "model.diffusion_model."


@pytest.fixture(scope="module")
def original() -> dict[str, Tensor]:
    return checkpoint("videocrafter2-t2v-512")


def saved(tensors: dict[str, Tensor], folder: Path) -> Path:
    torch.save({"state_dict": tensors}, folder / "model.ckpt")
    return folder / "model.ckpt"


@pytest.mark.parametrize("variant", list(UNETS))
def test_a_checkpoint_becomes_a_folder_that_loads_with_its_weights(variant: str, tmp_path: Path) -> None:
    tensors = checkpoint(variant)
    path = saved({f"_forward_module.{name}": tensor for name, tensor in tensors.items()}, tmp_path)
    named = variant if variant == "dynamicrafter-512" else None  # which has a sibling of equal tensors
    done = convert(path, tmp_path / "out", variant=named)
    assert done.variant == variant
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    pipe = own_class(index["_class_name"]).from_pretrained(tmp_path / "out")
    assert inspect_model(tmp_path / "out").class_name == type(pipe).__name__
    conv_in = tensors[f"{MODEL}input_blocks.0.0.weight"]
    assert torch.equal(pipe.unet.conv_in.weight, conv_in)
    last = tensors["cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias"][-64:]
    assert torch.equal(pipe.text_encoder.encoder.layers[0].self_attn.v_proj.bias, last)
    pipe.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "model_index.json").read_text())
    assert {name: again[name] for name in index if name != "_name_or_path"} == index


def test_weights_are_written_in_the_dtype_asked_for(original: dict[str, Tensor], tmp_path: Path) -> None:
    convert(saved(original, tmp_path), tmp_path / "out", dtype="bf16")
    for file in (tmp_path / "out").glob("*/*.safetensors"):
        assert {tensor.dtype for tensor in load_file(file).values()} == {torch.bfloat16}


def test_unknown_missing_and_misshapen_tensors_are_named(original: dict[str, Tensor], tmp_path: Path) -> None:
    extra = original | {f"{MODEL}adapter.weight": torch.ones(1)}
    missing = {name: t for name, t in original.items() if name != f"{MODEL}input_blocks.3.0.in_layers.2.bias"}
    misshapen = original | {f"{MODEL}out.2.bias": torch.ones(5)}
    no_text = {name: tensor for name, tensor in original.items() if not name.startswith("cond_stage")}
    expected = {
        "not known: model.diffusion_model.adapter.weight": extra,
        "no tensors for down_blocks.1.resnets.0.conv1.bias": missing,
        r"out.2.bias has shape (5,), but conv_out.bias is (4,)": misshapen,
        "has no complete text_encoder": no_text,
    }
    for problem, tensors in expected.items():
        with pytest.raises(ModelError, match=re.escape(problem)):
            convert(saved(tensors, tmp_path), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model.ckpt"]  # nothing half done is left


def test_another_familys_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="of no model that is known"):
        convert(saved({"layer.weight": torch.ones(1)}, tmp_path), tmp_path / "out")


def test_models_of_equal_tensors_need_a_name(tmp_path: Path) -> None:
    path = saved(checkpoint("dynamicrafter-512"), tmp_path)
    with pytest.raises(ModelError, match="may be dynamicrafter-512, dynamicrafter-512-interp"):
        convert(path, tmp_path / "out")
    with pytest.raises(ModelError, match="is not dynamicrafter-1024"):  # its latents scale otherwise
        convert(path, tmp_path / "out", variant="dynamicrafter-1024")
    convert(path, tmp_path / "out", variant="dynamicrafter-512-interp")
    assert json.loads((tmp_path / "out/unet/config.json").read_text())["default_fps"] == 5


def test_a_folder_that_exists_is_left_alone(original: dict[str, Tensor], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="is there already"):
        convert(saved(original, tmp_path), tmp_path / "out")


def test_the_command_converts_and_the_result_can_be_locked_and_verified(
    original: dict[str, Tensor], tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    printed = command("model", "convert", str(saved(original, tmp_path)), out)
    assert "videocrafter2-t2v-512, VideoCrafterPipeline" in printed.stdout
    assert "files" in command("model", "lock", out).stdout
    assert "as locked" in command("model", "verify", out).stdout
    assert "VideoCrafterUNet3DModel" in command("model", "info", out).stdout


def test_a_component_of_a_module_that_is_not_ours_is_not_imported(
    original: dict[str, Tensor], tmp_path: Path
) -> None:
    convert(saved(original, tmp_path), tmp_path / "out")
    index = tmp_path / "out" / "model_index.json"
    content = json.loads(index.read_text()) | {"unet": ["framefleet.pipeline.errors", "ModelError"]}
    index.write_text(json.dumps(content))
    refused = command("model", "info", str(tmp_path / "out"))
    assert "which is not installed here" in refused.stderr
