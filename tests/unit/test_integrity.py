"""Only whole safetensors are loaded, and one digest names them all."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.sources.integrity import file_digests, loaded_files, model_digest

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model_index.json").write_text("{}")
    for name in ("transformer", "vae"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        save_file({"weight": torch.arange(4.0)}, tmp_path / name / WEIGHTS)
    return tmp_path


def _digest(folder: Path) -> str:
    return model_digest(file_digests(folder, loaded_files(folder, ["transformer", "vae"])))


def _shard(folder: Path, *shards: str) -> None:
    (folder / "vae" / WEIGHTS).unlink()
    index = {"weight_map": {f"weight.{i}": shard for i, shard in enumerate(shards)}}
    (folder / "vae" / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def test_the_digest_is_that_of_sha256sums_lines(folder: Path) -> None:
    files = loaded_files(folder, ["transformer", "vae"])
    lines = subprocess.run(["sha256sum", *files], cwd=folder, capture_output=True, check=True).stdout
    assert _digest(folder) == hashlib.sha256(lines).hexdigest()


def test_files_are_listed_with_configs_and_without_what_is_not_loaded(folder: Path) -> None:
    for name in ("README.md", ".gitattributes", "model.fp16.safetensors", "flax_model.msgpack", "old.ckpt"):
        (folder / "vae" / name).write_text("x")
    assert loaded_files(folder, ["vae"]) == ["model_index.json", "vae/config.json", f"vae/{WEIGHTS}"]


def test_the_digest_changes_with_a_weight_and_with_a_config(folder: Path) -> None:
    before = _digest(folder)
    (folder / "vae" / "config.json").write_text('{"a": 1}')
    changed = _digest(folder)
    save_file({"weight": torch.ones(4)}, folder / "vae" / WEIGHTS)
    assert len({before, changed, _digest(folder)}) == 3


def test_shards_are_loaded_with_their_index(folder: Path) -> None:
    _shard(folder, "a.safetensors", "b.safetensors", "a.safetensors")
    for name in "ab":
        save_file({"weight": torch.zeros(1)}, folder / "vae" / f"{name}.safetensors")
    files = loaded_files(folder, ["vae"])
    assert {"vae/a.safetensors", "vae/b.safetensors", f"vae/{WEIGHTS}.index.json"} <= set(files)


def test_a_missing_shard_is_named(folder: Path) -> None:
    _shard(folder, "a.safetensors")
    with pytest.raises(ModelError, match=r"a\.safetensors is missing"):
        loaded_files(folder, ["vae"])


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": 3}', "{}"])
def test_an_index_that_is_none_is_refused(folder: Path, text: str) -> None:
    _shard(folder)
    (folder / "vae" / f"{WEIGHTS}.index.json").write_text(text)
    with pytest.raises(ModelError, match="not an index"):
        loaded_files(folder, ["vae"])


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "weights.ckpt", "model.pt"])
def test_pickles_are_refused_where_there_are_no_safetensors(folder: Path, name: str) -> None:
    (folder / "vae" / WEIGHTS).rename(folder / "vae" / name)
    with pytest.raises(ModelError, match="pickle"):
        loaded_files(folder, ["vae"])


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"x"], ids=["truncated", "too long"])
def test_a_file_of_another_length_than_its_header_says_is_refused(folder: Path, change) -> None:  # type: ignore[no-untyped-def]
    path = folder / "vae" / WEIGHTS
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ModelError, match="its header says"):
        loaded_files(folder, ["vae"])


@pytest.mark.parametrize("content", [b"", b"\x08", b"<html>not found</html>", b"\x02" + bytes(7) + b"[]"])
def test_a_file_that_is_no_safetensors_is_refused(folder: Path, content: bytes) -> None:
    (folder / "vae" / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match="not a safetensors file"):
        loaded_files(folder, ["vae"])
