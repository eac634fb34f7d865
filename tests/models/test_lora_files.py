"""LoRAs from a hub, from object storage and from folders: fetched once, named for other machines, checked."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import fsspec
import huggingface_hub.constants
import pytest

from framefleet.pipeline.errors import ModelError, ServiceError
from framefleet.pipeline.model.lora import Lora, fetch_lora
from framefleet.pipeline.model.sources.integrity import sha256_of
from tests.hub_server import HubServer
from tests.loras import save_lora

REPO = "studio/style-lora"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_lora("wan", "style", tmp_path_factory.mktemp("lora"))


@pytest.fixture
def repo(hub: HubServer, file: Path, tmp_path: Path) -> HubServer:
    folder = tmp_path / "repo"
    folder.mkdir()
    shutil.copy(file, folder / "style.safetensors")
    (folder / "README.md").write_text("never loaded")
    hub.repos[REPO] = folder
    return hub


def test_a_local_file_and_its_folder_are_the_same_lora(file: Path) -> None:
    found = fetch_lora("style", Lora(path=str(file)))
    assert found.path == file
    assert found.lora == Lora(path=str(file.parent), file=file.name, sha256=sha256_of(file))
    assert fetch_lora("style", Lora(path=f"file://{file.parent}")) == found
    assert fetch_lora("style", found.lora) == found


def test_a_link_is_followed_where_the_user_named_it_and_not_in_a_folder_of_others(
    file: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "style.safetensors").symlink_to(file)
    with pytest.raises(ModelError, match="not in the model's folder"):
        fetch_lora("style", Lora(path=str(packed)))
    named = fetch_lora("style", Lora(path=str(packed / "style.safetensors")))
    assert fetch_lora("style", named.lora) == named  # as a worker does


def test_a_file_that_is_another_than_the_drivers_or_not_there_is_refused(file: Path) -> None:
    with pytest.raises(ModelError, match="is not the expected file.*" + "0" * 64):
        fetch_lora("style", Lora(path=str(file), sha256="0" * 64))
    with pytest.raises(ModelError, match=r"loras\.style: .* does not exist"):
        fetch_lora("style", Lora(path="./nowhere"))


def test_a_hub_lora_is_named_by_its_commit_and_fetched_once(repo: HubServer, file: Path) -> None:
    found = fetch_lora("style", Lora(path=REPO))
    assert found.lora == Lora(
        path=REPO, revision=repo.commit(REPO), file="style.safetensors", sha256=sha256_of(file)
    )
    assert fetch_lora("style", Lora(path=f"{REPO}@main", file="style.safetensors")).lora == found.lora
    requests = len(repo.requests)
    assert fetch_lora("style", found.lora) == found  # as a worker does
    assert len(repo.requests) == requests
    assert len(repo.fetched()) == 1


DEEP = "sdxl/style/x.safetensors"


@pytest.mark.parametrize("name", ["style.safetensors", DEEP])
def test_a_hub_lora_in_the_cache_is_used_offline(
    name: str, repo: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "repo"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "style.safetensors").rename(folder / name)
    found = fetch_lora("style", Lora(path=REPO, file=name))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for lora in (found.lora, Lora(path=REPO, file=name), Lora(path=REPO)):
        assert fetch_lora("style", lora) == found
    with pytest.raises(ServiceError):
        fetch_lora("style", Lora(path="studio/other"))


def test_a_file_below_folders_is_found_in_a_folder(file: Path, tmp_path: Path) -> None:
    (tmp_path / DEEP).parent.mkdir(parents=True)
    shutil.copy(file, tmp_path / DEEP)
    assert fetch_lora("style", Lora(path=str(tmp_path), file=DEEP)).path == tmp_path / DEEP
    with pytest.raises(ModelError, match=r"other/y\.safetensors does not exist"):
        fetch_lora("style", Lora(path=str(tmp_path), file="sdxl/other/y.safetensors"))


def test_a_hub_lora_whose_bytes_changed_in_the_cache_is_refused(repo: HubServer) -> None:
    found = fetch_lora("style", Lora(path=REPO))
    content = bytearray(found.path.read_bytes())
    content[-1] ^= 1
    found.path.resolve().write_bytes(content)
    for lora in (found.lora, replace(found.lora, sha256=None)):
        with pytest.raises(ModelError, match="is not the expected file"):
            fetch_lora("style", lora)


def test_a_hub_lora_that_is_not_there_is_refused(repo: HubServer) -> None:
    for lora, problem in (
        (Lora(path=REPO, file="other.safetensors"), r"has no other\.safetensors"),
        (Lora(path=REPO, file="README.md"), r"README\.md is not a \.safetensors file"),
        (Lora(path=REPO, revision="v9"), "has no revision 'v9'"),
    ):
        with pytest.raises(ModelError, match=problem):
            fetch_lora("style", lora)


def test_a_url_of_a_file_or_a_folder_is_fetched_into_the_cache(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path / "cache"))
    place = f"memory://loras-{tmp_path.name}"
    fsspec.filesystem("memory").put(str(file), f"{place}/style.safetensors")
    found = fetch_lora("style", Lora(path=f"{place}/style.safetensors"))
    assert found.lora == Lora(path=place, file="style.safetensors", sha256=sha256_of(file))
    assert found.path.read_bytes() == file.read_bytes()
    assert found.path.is_relative_to(tmp_path / "cache")
    assert fetch_lora("style", Lora(path=place)).lora == found.lora
    with pytest.raises(ModelError, match=r"loras\.style: .*nowhere\.safetensors does not exist"):
        fetch_lora("style", Lora(path=f"{place}/nowhere.safetensors"))
