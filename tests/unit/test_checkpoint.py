"""Opening checkpoints: the formats that authors ship, and what is refused."""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from framefleet.pipeline.errors import ModelError
from framefleet.plugins.ports.conversion.checkpoint import open_checkpoint
from framefleet.plugins.ports.conversion.convert import write_safetensors

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.scale": torch.tensor(2.0, dtype=torch.bfloat16)}


def check_opened(path: Path) -> None:
    opened = open_checkpoint(path)
    assert {name: (t.shape, t.dtype, t.device.type) for name, t in opened.shapes.items()} == {
        name: (t.shape, t.dtype, "meta") for name, t in TENSORS.items()
    }
    assert all(torch.equal(opened.read(name), tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize("nest", [None, "state_dict", "module"])
@pytest.mark.parametrize("wrapper", ["", "_forward_module.", "module."])
def test_a_pickle_is_opened_as_trainers_nest_it(nest: str | None, wrapper: str, tmp_path: Path) -> None:
    tensors = {wrapper + name: tensor for name, tensor in TENSORS.items()}
    content = {nest: tensors, "epoch": 3, "betas": [0.9]} if nest else tensors
    torch.save(content, tmp_path / "model.ckpt")
    check_opened(tmp_path / "model.ckpt")
    (tmp_path / "README.md").touch()
    check_opened(tmp_path)  # a folder of one file is that file


class Malice:
    """Writes a file when a pickle of it is opened carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("nest", [None, "hyper_parameters"])
def test_a_malicious_pickle_is_refused_and_not_run(nest: str | None, tmp_path: Path) -> None:
    malice = Malice(tmp_path / "was here")
    torch.save({"state_dict": TENSORS, "x": {nest: malice} if nest else malice}, tmp_path / "model.ckpt")
    with pytest.raises(ModelError, match="could run code when it is opened") as refused:
        open_checkpoint(tmp_path / "model.ckpt")
    assert "weights_only" not in str(refused.value) and "\x1b" not in str(refused.value)
    torch.save({"state_dict": TENSORS, "x": os.system}, tmp_path / "model.ckpt")
    with pytest.raises(ModelError, match=r"it names posix\.system"):
        open_checkpoint(tmp_path / "model.ckpt")
    assert not malice.path.exists()


def lightning_classes(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """Return Lightning's classes as it has them, of modules that are there while the file is written."""
    made = []
    for module, name, base in (
        ("pytorch_lightning.utilities.parsing", "AttributeDict", dict),
        ("lightning_fabric.utilities.data", "AttributeDict", dict),
        ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", object),
    ):
        parts = module.split(".")
        for package in (".".join(parts[: i + 1]) for i in range(len(parts))):
            monkeypatch.setitem(sys.modules, package, sys.modules.get(package, types.ModuleType(package)))
        made.append(type(name, (base,), {"__module__": module}))
        vars(sys.modules[module])[name] = made[-1]  # a module of this test's own
    return made


def test_classes_that_lightning_leaves_beside_the_tensors_are_harmless(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as written:
        parsing, fabric, callback = lightning_classes(written)
        kept = parsing({"rate": np.float64(1e-4), "steps": np.int64(3), "betas": np.ones(2)})
        kept["more"] = fabric(kind=np.dtype("f4"), given=argparse.Namespace(config=Path("a.yaml")))
        content = {
            "state_dict": TENSORS,
            "callbacks": {callback: {"best": np.float32(1), "epochs": collections.defaultdict(list, a=[1])}},
            "hyper_parameters": kept,
        }
        torch.save(content, tmp_path / "model.ckpt")
    check_opened(tmp_path / "model.ckpt")
    assert not [name for name in sys.modules if "lightning" in name]


def test_a_harmless_class_opens_no_door_for_others(tmp_path: Path) -> None:
    given = argparse.Namespace(callback=Malice(tmp_path / "was here"))
    torch.save({"state_dict": TENSORS, "hyper_parameters": given}, tmp_path / "model.ckpt")
    with pytest.raises(ModelError) as refused:
        open_checkpoint(tmp_path / "model.ckpt")
    assert "pathlib.Path" in refused.value.problem and "Namespace" not in refused.value.problem
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page"),
        (b"not a checkpoint", "cut short, or was not saved by torch 1.6|is not a safetensors file"),
    ],
)
def test_a_file_of_another_kind_is_called_what_it_is(
    content: bytes, problem: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=problem) as refused:
        open_checkpoint(path)
    assert refused.value.problem.startswith(str(path)) and "mmap" not in str(refused.value)


def test_a_pickle_that_is_damaged_in_any_place_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": TENSORS}, tmp_path / "whole.ckpt")
    with zipfile.ZipFile(tmp_path / "whole.ckpt") as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    (name,) = (name for name in parts if name.endswith("data.pkl"))
    opcodes = parts[name]
    for place in range(0, len(opcodes), 13):
        for damaged in (opcodes[:place], opcodes[:place] + b"\xff" + opcodes[place + 1 :]):
            with zipfile.ZipFile(tmp_path / "damaged.ckpt", "w") as archive:
                for part, stored in parts.items():
                    archive.writestr(part, damaged if part == name else stored)
            with contextlib.suppress(ModelError):  # or it is still a checkpoint, of other names
                open_checkpoint(tmp_path / "damaged.ckpt")
    content = (tmp_path / "whole.ckpt").read_bytes()
    (tmp_path / "model.ckpt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="is cut short"):
        open_checkpoint(tmp_path / "model.ckpt")


def test_names_of_a_folder_of_files_start_with_the_file_and_links_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    save_file({"x": torch.zeros(1)}, tmp_path / "elsewhere" / "b.safetensors")
    folder = tmp_path / "folder"
    folder.mkdir()
    torch.save({"x": torch.ones(1)}, folder / "a.pt")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "round").symlink_to(folder)
    opened = open_checkpoint(folder)
    assert list(opened.shapes) == ["a.pt:x", "linked/b.safetensors:x"]
    assert [float(opened.read(name)) for name in opened.shapes] == [1.0, 0.0]


def test_a_pickle_beside_safetensors_of_the_same_weights_is_not_opened(tmp_path: Path) -> None:
    for place in ("text", "clip"):
        (tmp_path / place).mkdir()
    save_file(TENSORS, tmp_path / "text" / "model-00001-of-00001.safetensors")
    (tmp_path / "text" / "pytorch_model-00001-of-00002.bin").write_bytes(b"broken")
    save_file(TENSORS, tmp_path / "clip" / "open_clip_model.safetensors")
    (tmp_path / "clip" / "open_clip_pytorch_model.bin").write_bytes(b"broken")
    assert {name.partition(":")[0] for name in open_checkpoint(tmp_path).shapes} == {
        "clip/open_clip_model.safetensors",
        "text/model-00001-of-00001.safetensors",
    }
    (tmp_path / "text" / "other.bin").write_bytes(b"broken")
    with pytest.raises(ModelError, match=r"other\.bin is cut short"):
        open_checkpoint(tmp_path)


def test_what_holds_no_checkpoint_is_refused(tmp_path: Path) -> None:
    contents = (torch.ones(4), [torch.ones(2)], 42, "text", {"state_dict": [1, 2]}, {"module": 3})
    for number, content in enumerate(contents):
        torch.save(content, tmp_path / f"{number}.ckpt")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "model_index.json").touch()
    expected = {
        **{f"{number}.ckpt": "has no tensors" for number in range(len(contents))},
        "notes.txt": "is not a checkpoint",
        "absent.ckpt": "does not exist",
        "folder": "has no .safetensors",
        "done": "already a diffusers pipeline folder",
    }
    for name, problem in expected.items():
        with pytest.raises(ModelError, match=problem):
            open_checkpoint(tmp_path / name)


def test_a_written_file_is_what_safetensors_writes(tmp_path: Path) -> None:
    ordered = collections.OrderedDict(sorted(TENSORS.items()))
    shapes = {name: tensor.to("meta") for name, tensor in ordered.items()}
    write_safetensors(tmp_path / "model.safetensors", shapes, ordered.__getitem__)
    check_opened(tmp_path / "model.safetensors")
