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
from tests.hub_server import HubServer, hub
from tests.loras import save_lora

__all__ = ["hub"]  # a fixture

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


def test_a_file_that_is_another_than_the_drivers_is_refused(file: Path) -> None:
    with pytest.raises(ModelError, match="is not the expected file.*" + "0" * 64):
        fetch_lora("style", Lora(path=str(file), sha256="0" * 64))


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


def test_a_hub_lora_in_the_cache_is_used_offline(repo: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    found = fetch_lora("style", Lora(path=REPO))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch_lora("style", found.lora) == found
    assert fetch_lora("style", Lora(path=REPO)) == found
    with pytest.raises(ServiceError):
        fetch_lora("style", Lora(path="studio/other"))


DEEP = "sdxl/style/x.safetensors"


def test_a_file_below_folders_is_found_in_a_folder_and_offline(
    repo: HubServer, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "repo"
    (folder / DEEP).parent.mkdir(parents=True)
    (folder / "style.safetensors").rename(folder / DEEP)
    assert fetch_lora("style", Lora(path=str(folder), file=DEEP)).path == folder / DEEP
    with pytest.raises(ModelError, match=r"other/y\.safetensors does not exist"):
        fetch_lora("style", Lora(path=str(folder), file="sdxl/other/y.safetensors"))
    found = fetch_lora("style", Lora(path=REPO, file=DEEP))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch_lora("style", Lora(path=REPO, file=DEEP)) == found
    assert fetch_lora("style", Lora(path=REPO)) == found


def test_a_hub_lora_whose_bytes_changed_in_the_cache_is_refused(repo: HubServer) -> None:
    found = fetch_lora("style", Lora(path=REPO))
    content = bytearray(found.path.read_bytes())
    content[-1] ^= 1
    found.path.resolve().write_bytes(content)
    for lora in (found.lora, replace(found.lora, sha256=None)):
        with pytest.raises(ModelError, match="is not the expected file"):
            fetch_lora("style", lora)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"file": "other.safetensors"}, r"has no other\.safetensors"),
        ({"file": "README.md"}, r"README\.md is not a \.safetensors file"),
        ({"revision": "v9"}, "has no revision 'v9'"),
    ],
)
def test_a_hub_lora_that_is_not_there_is_told(repo: HubServer, given: dict[str, str], problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        fetch_lora("style", Lora(path=REPO, **given))  # type: ignore[arg-type]


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


@pytest.mark.parametrize("path", ["./loras/styl.safetensors", "loras/styl.safetensors", "./nowhere"])
def test_a_place_that_does_not_exist_is_told_with_its_path(path: str) -> None:
    with pytest.raises(ModelError, match=r"loras\.style: .* does not exist"):
        fetch_lora("style", Lora(path=path))
