"""Pruned checkpoints of DynamiCrafter, and the encoders that are given for them: `--set text_encoder=DIR`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

from framefleet.pipeline.errors import ModelError
from framefleet.plugins.ports.conversion.convert import convert_model
from tests.commands import command
from tests.crafter_originals import checkpoint

VARIANT = "dynamicrafter-512"
TEXT, CLIP = "cond_stage_model.model.", "embedder.model."
ENCODERS = ("text_encoder", "image_encoder")


@pytest.fixture(scope="module")
def original() -> dict[str, Tensor]:
    return checkpoint(VARIANT)


@pytest.fixture(scope="module")
def whole(original: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what becomes of a file that is not pruned."""
    folder = tmp_path_factory.mktemp("whole")
    torch.save({"state_dict": original}, folder / "model.ckpt")
    convert_model(folder / "model.ckpt", folder / "out", variant=VARIANT)
    return folder / "out"


@pytest.fixture
def pruned(original: dict[str, Tensor], tmp_path: Path) -> Path:
    kept = {name: t for name, t in original.items() if not name.startswith((TEXT, CLIP))}
    save_file(kept, tmp_path / "pruned.safetensors")
    return tmp_path / "pruned.safetensors"


def both_towers(original: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a whole CLIP, as open_clip names them."""
    text = {name.removeprefix(TEXT): t for name, t in original.items() if name.startswith(TEXT)}
    return text | {name.removeprefix(CLIP): t for name, t in original.items() if name.startswith(CLIP)}


def check_same(found: Path, expected: Path) -> None:
    for encoder in ENCODERS:
        ours, theirs = (load_file(folder / encoder / "model.safetensors") for folder in (found, expected))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        ours, theirs = (
            json.loads((folder / encoder / "config.json").read_text()) for folder in (found, expected)
        )
        assert ours | {"projection_dim": theirs["projection_dim"]} == theirs  # which no layer reads


def test_a_pruned_file_is_refused_with_what_to_give(pruned: Path, tmp_path: Path) -> None:
    refused = command("model", "convert", pruned, tmp_path / "out", "--variant", VARIANT, exits=2)
    assert f"{pruned} has no text_encoder ({TEXT}*) and image_encoder ({CLIP}visual.*)" in refused.stderr
    assert "--set text_encoder=DIR --set image_encoder=DIR" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_encoders_are_given_with_the_names_of_open_clip(
    original: dict[str, Tensor], pruned: Path, whole: Path, tmp_path: Path
) -> None:
    clip = tmp_path / "clip"
    clip.mkdir()
    save_file(both_towers(original), clip / "open_clip_model.safetensors")
    (clip / "open_clip_pytorch_model.bin").write_bytes(b"not read")
    given = [part for encoder in ENCODERS for part in ("--set", f"{encoder}={clip}")]
    command("model", "convert", pruned, tmp_path / "out", "--variant", VARIANT, *given, exits=0)
    check_same(tmp_path / "out", whole)


@pytest.mark.parametrize("stem", ["", "{}_model."])
def test_encoders_are_given_with_the_names_of_transformers(
    stem: str, pruned: Path, whole: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {}
    for encoder, tower in (("text_encoder", "text"), ("image_encoder", "vision")):
        tensors = load_file(whole / encoder / "model.safetensors")
        plain = {name.removeprefix(f"{tower}_model."): tensor for name, tensor in tensors.items()}
        file = tmp_path / f"{tower}.safetensors"
        more = {"logit_scale": torch.ones(()), f"{tower}_projection.weight": torch.ones(2, 2)}
        save_file({stem.format(tower) + name: tensor for name, tensor in plain.items()} | more, file)
        given[encoder] = str(file)
    convert_model(pruned, tmp_path / "out", variant=VARIANT, settings=given)
    check_same(tmp_path / "out", whole)


def test_an_encoder_may_come_from_another_checkpoint_and_goes_before_the_files_own(
    original: dict[str, Tensor], whole: Path, tmp_path: Path
) -> None:
    other = {name: t + 1 if name.startswith((TEXT, CLIP)) else t for name, t in original.items()}
    torch.save({"state_dict": other}, tmp_path / "other.ckpt")
    torch.save({"state_dict": original}, tmp_path / "model.ckpt")
    given = dict.fromkeys(ENCODERS, str(tmp_path / "model.ckpt"))
    convert_model(tmp_path / "other.ckpt", tmp_path / "out", variant=VARIANT, settings=given)
    check_same(tmp_path / "out", whole)


def test_a_whole_tower_of_transformers_loses_its_last_block(tmp_path: Path, pruned: Path) -> None:
    """ViT-H-14 has 24, of which 23 are used."""
    sizes = {"hidden_size": 64, "intermediate_size": 32, "num_attention_heads": 1, "vocab_size": 100}
    CLIPTextModel(CLIPTextConfig(num_hidden_layers=24, **sizes)).save_pretrained(tmp_path / "text")
    vision = {"hidden_size": 80, "intermediate_size": 32, "num_attention_heads": 1, "image_size": 28}
    CLIPVisionModel(CLIPVisionConfig(num_hidden_layers=2, patch_size=14, **vision)).save_pretrained(
        tmp_path / "vision"
    )
    given = {"text_encoder": str(tmp_path / "text"), "image_encoder": str(tmp_path / "vision")}
    convert_model(pruned, tmp_path / "out", variant=VARIANT, settings=given)
    text = CLIPTextModel.from_pretrained(tmp_path / "out" / "text_encoder")
    assert (text.config.num_hidden_layers, text.config.hidden_act) == (23, "gelu")
    assert CLIPVisionModel.from_pretrained(tmp_path / "out" / "image_encoder").config.num_hidden_layers == 2


def test_what_is_no_encoder_of_the_model_is_refused(
    original: dict[str, Tensor], pruned: Path, tmp_path: Path
) -> None:
    towers = both_towers(original)
    save_file({"x": torch.ones(1)}, tmp_path / "none.safetensors")
    narrow = {name: t[..., :48] if t.dim() else t for name, t in towers.items() if "visual" not in name}
    save_file({n: t.contiguous() for n, t in narrow.items()}, tmp_path / "narrow.safetensors")
    save_file(towers, tmp_path / "clip.safetensors")
    lacks = {name: t for name, t in towers.items() if name != "visual.ln_pre.bias"}
    save_file(lacks, tmp_path / "lacks.safetensors")
    clip = str(tmp_path / "clip.safetensors")
    expected: dict[str, dict[str, Any]] = {
        "--set text_encoder: it has no text_encoder of CLIP": {
            "text_encoder": str(tmp_path / "none.safetensors")
        },
        "--set text_encoder: it is 48 wide, and the unet of .* reads 64": {
            "text_encoder": str(tmp_path / "narrow.safetensors"),
            "text_encoder.num_attention_heads": 3,
        },
        "no tensors image_encoder:visual.ln_pre.bias": {
            "text_encoder": clip,
            "image_encoder": str(tmp_path / "lacks.safetensors"),
        },
        "does not exist": {"text_encoder": str(tmp_path / "absent.safetensors")},
        "--set text_encoder=5: it is not a path": {"text_encoder": 5},
        "--set vae: .* takes none by itself": {"text_encoder": clip, "vae": clip},
        "--set vea: .* takes none by itself": {"text_encoder": clip, "vea": clip},
    }
    for problem, given in expected.items():
        with pytest.raises(ModelError, match=problem):
            convert_model(pruned, tmp_path / "out", variant=VARIANT, settings={"image_encoder": clip} | given)
    assert not (tmp_path / "out").exists()
