"""Files in place of components' weights: checked before anything starts, and used from the cache offline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import gguf
import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from framefleet.pipeline.errors import ModelError, ServiceError
from framefleet.pipeline.model.model import ModelSettings, source_of, weights_of
from framefleet.pipeline.model.sources.parts import ModelPart, PartFile, open_parts
from framefleet.pipeline.model.sources.weights import Weights
from tests.commands import command
from tests.gguf_files import write_gguf
from tests.hub_server import HubServer
from tests.model_files import flip_a_byte
from tests.tiny import tiny

REPO, FILE = "studio/repackaged", "split_files/vae/wan.safetensors"


def part_of(path: Any, **given: str | None) -> PartFile:
    (part,) = open_parts({"vae": ModelPart(path=str(path), **given)}, {})
    return part


def weights_with(path: Path) -> Weights:
    settings = ModelSettings(path=str(tiny("wan")), parts={"vae": ModelPart(path=str(path))})
    return weights_of(settings, source_of(settings))


@pytest.fixture
def repo(hub: HubServer, tmp_path: Path) -> HubServer:
    folder = hub.repos[REPO] = tmp_path / "repo"
    (folder / FILE).parent.mkdir(parents=True)
    save_file({"weight": torch.ones(2, 2)}, folder / FILE)
    (folder / "README.md").write_text("never loaded")
    return hub


@pytest.fixture
def go_offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("name", ["x.gguf", "x.safetensors"])
def test_a_part_that_is_cut_short_is_neither_planned_with_nor_locked(name: str, tmp_path: Path) -> None:
    tensors, file = {"weight": torch.ones(64, 64)}, tmp_path / name
    if name == "x.gguf":
        write_gguf(tensors, file, gguf.GGMLQuantizationType.Q8_0)
    else:
        save_file(tensors, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="but its header says"):
        weights_with(file).configs()
    locked = command("model", "lock", tiny("wan"), "--part", f"vae={file}", "--output", tmp_path / "lock")
    assert locked.exit_code == 2 and "but its header says" in locked.output
    assert not (tmp_path / "lock").exists()


def test_a_gguf_file_may_have_more_behind_its_tensors(tmp_path: Path) -> None:
    file = write_gguf({"weight": torch.ones(64, 64)}, tmp_path / "x.gguf", gguf.GGMLQuantizationType.Q8_0)
    file.write_bytes(file.read_bytes() + bytes(32))
    assert len(part_of(file).tensors) == 1


def test_shapes_that_bytes_cannot_have_and_whole_numbers_are_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F6_E2M3", "shape": [2**60], "data_offsets": [0, 8]}  # of a type that nobody counts
    header = json.dumps({"weight": entry}).encode()
    file = tmp_path / "x.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ModelError, match="is not a safetensors file"):
        weights_with(file).configs()
    save_file({"layer.weight": torch.ones(2, 2, dtype=torch.int8)}, file)
    with pytest.raises(ModelError, match="packed as whole numbers"):
        weights_with(file).configs()


def test_a_url_where_nothing_is_is_refused_with_its_place(tmp_path: Path) -> None:
    place = f"memory://parts-{tmp_path.name}"
    fsspec.filesystem("memory").pipe(f"{place}/other.safetensors", b"x")
    with pytest.raises(ModelError, match=r"model\.parts\.vae: .*/typo\.gguf does not exist") as caught:
        part_of(f"{place}/typo.gguf")
    assert caught.value.fix == "check the URL"


def test_a_part_of_the_hub_is_fetched_once_and_then_asked_for_nowhere(
    repo: HubServer, go_offline: Callable[[], None]
) -> None:
    part = part_of(f"{REPO}/{FILE}")
    digest = part.digest()
    assert repo.fetched() == [f"GET /{REPO}/resolve/{repo.commit(REPO)}/{FILE}"]  # its header
    path, sha256 = part.fetched(), part.checked()
    repo.requests.clear()
    again = part_of(part.part.path, revision=part.part.revision)  # as a worker does
    assert (again.part, again.fetched(), again.checked()) == (part.part, path, digest)
    assert sha256 == digest and repo.requests == []
    go_offline()
    offline = part_of(f"{REPO}/{FILE}")
    assert (offline.part, offline.digest(), len(offline.tensors)) == (part.part, digest, 1)
    with pytest.raises(ServiceError, match="HF_HUB_OFFLINE is set"):
        part_of(f"{REPO}/split_files/vae/other.safetensors")


@pytest.mark.parametrize("with_listing", [False, True])
def test_a_part_that_somebody_fetched_alone_is_used_offline(
    with_listing: bool, repo: HubServer, go_offline: Callable[[], None]
) -> None:
    if with_listing:  # which says that README.md is missing
        huggingface_hub.snapshot_download(REPO, allow_patterns=[FILE])
    else:
        huggingface_hub.hf_hub_download(REPO, FILE)
    go_offline()
    assert part_of(f"{REPO}/{FILE}").part.revision == repo.commit(REPO)


def test_a_file_that_the_hub_does_not_have_is_refused_with_the_nearest(repo: HubServer) -> None:
    with pytest.raises(ModelError, match="has no file split_files/vae/wam") as caught:
        part_of(f"{REPO}/split_files/vae/wam.safetensors")
    assert FILE in caught.value.fix


def test_a_file_deep_in_the_cache_is_held_against_the_name_of_its_blob(
    repo: HubServer, go_offline: Callable[[], None]
) -> None:
    huggingface_hub.hf_hub_download(REPO, FILE)
    go_offline()
    blob = Path(huggingface_hub.hf_hub_download(REPO, FILE)).resolve()
    flip_a_byte(blob)
    part = part_of(f"{REPO}/{FILE}")
    weights = Weights(source=part.source, class_name="", components=(), files=(FILE,), expected={}, lock=None)
    with pytest.raises(ModelError, match="corrupted or a different file"):
        weights.fetched()
