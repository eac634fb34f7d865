"""Opening checkpoints: the formats that authors ship, and what is refused."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from framefleet.pipeline.conversion.checkpoint import open_checkpoint
from framefleet.pipeline.conversion.safetensors_file import write_safetensors
from framefleet.pipeline.errors import ModelError

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.scale": torch.tensor(2.0, dtype=torch.bfloat16)}


class Code:
    """What a pickle of more than tensors holds."""


def check_opened(path: Path) -> None:
    opened = open_checkpoint(path)
    assert {name: (t.shape, t.dtype, t.device.type) for name, t in opened.shapes.items()} == {
        name: (t.shape, t.dtype, "meta") for name, t in TENSORS.items()
    }
    assert all(torch.equal(opened.read(name), tensor) for name, tensor in TENSORS.items())


def test_a_safetensors_file_is_opened(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    check_opened(tmp_path / "model.safetensors")


@pytest.mark.parametrize("nest", [None, "state_dict", "module"])
@pytest.mark.parametrize("wrapper", ["", "_forward_module.", "module."])
def test_a_pickle_is_opened_as_trainers_nest_it(nest: str | None, wrapper: str, tmp_path: Path) -> None:
    tensors = {wrapper + name: tensor for name, tensor in TENSORS.items()}
    content = {nest: tensors, "epoch": 3, "betas": [0.9]} if nest else tensors
    torch.save(content, tmp_path / "model.ckpt")
    check_opened(tmp_path / "model.ckpt")


@pytest.mark.parametrize(
    "content", [torch.ones(4), [torch.ones(2)], 42, "text", {"state_dict": [1, 2]}, {"module": 3}]
)
def test_a_pickle_without_named_tensors_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(ModelError, match="holds no tensors"):
        open_checkpoint(tmp_path / "model.ckpt")


def test_a_folder_of_one_file_is_that_file(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "model.ckpt")
    (tmp_path / "README.md").touch()
    check_opened(tmp_path)


def test_names_of_a_folder_of_files_start_with_the_file(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(1)}, tmp_path / "a.pt")
    save_file({"x": torch.zeros(1)}, tmp_path / "b.safetensors")
    opened = open_checkpoint(tmp_path)
    assert list(opened.shapes) == ["a.pt:x", "b.safetensors:x"]
    assert [float(opened.read(name)) for name in opened.shapes] == [1.0, 0.0]


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": TENSORS, "callback": Code()}, tmp_path / "model.ckpt")
    with pytest.raises(ModelError, match="could run code"):
        open_checkpoint(tmp_path / "model.ckpt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_broken_file_is_refused(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="model"):
        open_checkpoint(path)


def test_what_holds_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "empty.ckpt")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "model_index.json").touch()
    expected = {
        "empty.ckpt": "holds no tensors",
        "notes.txt": "is no checkpoint",
        "absent.ckpt": "does not exist",
        "folder": "holds no .safetensors",
        "done": "a diffusers pipeline folder already",
    }
    for name, problem in expected.items():
        with pytest.raises(ModelError, match=problem):
            open_checkpoint(tmp_path / name)


def test_a_written_file_is_what_safetensors_writes(tmp_path: Path) -> None:
    ordered = collections.OrderedDict(sorted(TENSORS.items()))
    shapes = {name: tensor.to("meta") for name, tensor in ordered.items()}
    write_safetensors(tmp_path / "model.safetensors", shapes, ordered.__getitem__)
    check_opened(tmp_path / "model.safetensors")
