"""Hub models, from a real server: fetched once, named by their commit, held against the hub's digests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import huggingface_hub.constants
import pytest

import framefleet
from framefleet.pipeline.errors import ModelError, ServiceError
from framefleet.pipeline.model.sources.source import open_source
from framefleet.pipeline.model.sources.weights import fetched_files, open_weights
from tests.commands import command
from tests.hub_server import HubServer, hub
from tests.model_files import model_files
from tests.tiny import SMALLEST, tiny
from tests.warm.process import start

__all__ = ["hub"]  # a fixture

REPO = "studio/tiny-wan"
BESIDE = (
    "README.md",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "vae/diffusion_pytorch_model.bin",
    "x.py",
)


@pytest.fixture
def repo(hub: HubServer, tmp_path: Path) -> HubServer:
    folder = shutil.copytree(tiny("wan"), tmp_path / "repo")
    for name in BESIDE:
        (folder / name).write_bytes(b"never loaded")
    hub.repos[REPO] = folder
    return hub


def test_a_hub_model_renders_and_is_named_by_its_commit(repo: HubServer, tmp_path: Path) -> None:
    model = framefleet.load_model(REPO)
    request = framefleet.Request(
        arguments={"prompt": "a", "max_sequence_length": 32, **SMALLEST["wan"]}, seed=1
    )
    local = framefleet.load_model(tiny("wan"))
    (clip,), (same,) = (framefleet.Renderer(m).render([request]) for m in (model, local))
    assert isinstance(clip, framefleet.Clip) and isinstance(same, framefleet.Clip)
    assert (clip.row_id, clip.frames_sha256) == (same.row_id, same.frames_sha256)
    assert model.settings.name == f"{REPO}@{repo.commit(REPO)}"
    assert not [
        path for path in (tmp_path / "hf").rglob("*") if path.name in {Path(name).name for name in BESIDE[:3]}
    ]


def test_a_driver_names_a_model_without_fetching_its_weights(repo: HubServer) -> None:
    weights = open_weights(open_source(f"{REPO}@main"))
    assert weights.digests() == model_files(tiny("wan"))
    assert repo.fetched() == []


def test_a_worker_asks_the_hub_nothing_when_all_is_in_the_cache(repo: HubServer) -> None:
    source = open_source(REPO)
    expected = open_weights(source).digests()
    fetched_files(source, expected, expected)
    repo.requests.clear()
    again = open_source(REPO, revision=source.revision)
    _, found = fetched_files(again, expected, expected)
    assert found == expected
    assert repo.requests == []


def test_eight_workers_that_start_together_fetch_every_file_once(repo: HubServer) -> None:
    source = open_source(REPO)
    files = [*open_weights(source).digests()]
    fetch = f"""
from framefleet.pipeline.model.sources.source import open_source
print(open_source({REPO!r}, revision={source.revision!r}).fetch({files!r}))
"""
    workers = [start("-c", fetch, is_cold=True, stderr=subprocess.PIPE) for _ in range(8)]
    ended = [worker.communicate(timeout=280) for worker in workers]
    assert len({folder for folder, _ in ended}) == 1, ended
    assert not any(worker.returncode for worker in workers), ended
    assert len(repo.fetched()) == len(set(repo.fetched())) == 3


def test_a_private_model_wants_the_token_and_nothing_shows_it(
    repo: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.private.add(REPO)
    with pytest.raises(ModelError, match="neither a folder here nor a model of the hub") as caught:
        open_source(REPO)
    assert "HF_TOKEN" in caught.value.fix
    monkeypatch.setenv("HF_TOKEN", repo.token)
    model = framefleet.load_model(REPO)
    assert repo.token not in repr(model.settings) + repr(model.environment)
    ended = command("model", "info", REPO, "-v")
    assert ended.exit_code == 0
    assert repo.token not in ended.output


def test_a_gated_model_says_where_its_terms_are(repo: HubServer) -> None:
    repo.gated.add(REPO)
    with pytest.raises(ModelError, match="is gated") as caught:
        open_source(REPO)
    assert "accept its terms" in caught.value.fix


@pytest.mark.parametrize("revision", ["v9", "0" * 40])
def test_a_revision_that_does_not_exist_is_refused(repo: HubServer, revision: str) -> None:
    with pytest.raises(ModelError, match=f"has no revision '{revision}'"):
        open_weights(open_source(REPO, revision=revision))


def test_a_revision_of_a_folder_is_refused() -> None:
    with pytest.raises(ModelError, match="is not a model of the hub"):
        open_source(str(tiny("wan")), revision="main")


def test_two_revisions_are_refused(repo: HubServer) -> None:
    with pytest.raises(ModelError, match="names a revision, and so does the job"):
        open_source(f"{REPO}@main", revision="v2")


def test_offline_what_is_in_the_cache_is_used(repo: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    online = framefleet.load_model(REPO)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repo.requests.clear()
    offline = framefleet.load_model(REPO)
    assert (offline.digest, offline.settings) == (online.digest, online.settings)
    assert repo.requests == []


def test_offline_a_model_of_which_only_the_configs_were_fetched_is_refused(
    repo: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_weights(open_source(REPO)).configs()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="needs weights"):
        framefleet.load_model(REPO)


def test_a_hub_that_cannot_be_reached_ends_with_3(repo: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ServiceError, match=r"the hub does not answer: (?!Got)") as caught:
        open_source(REPO, revision="v2")
    assert caught.value.fix.endswith(f"hf download {REPO} --revision v2")


def test_a_shard_that_changed_in_the_cache_is_refused_and_fetched_anew_once_deleted(repo: HubServer) -> None:
    folder, _ = open_weights(open_source(REPO)).fetched()
    blob = (folder / "vae" / "diffusion_pytorch_model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(ModelError, match="corrupted or another file") as caught:
        framefleet.load_model(REPO)
    assert f"delete {blob}" in caught.value.fix
    ended = command("model", "verify", REPO)
    assert ended.exit_code == 2
    assert "vae/diffusion_pytorch_model.safetensors is corrupted" in ended.stderr
    blob.unlink()
    assert framefleet.load_model(REPO).digests == model_files(tiny("wan"))


def test_a_config_that_changed_in_the_cache_is_refused(repo: HubServer) -> None:
    folder, _ = open_weights(open_source(REPO)).fetched()
    assert "as named in the cache" in command("model", "verify", REPO).stdout
    (folder / "vae" / "config.json").resolve().write_text("{}")
    with pytest.raises(ModelError, match=r"vae/config\.json is corrupted"):
        framefleet.load_model(REPO)
    assert command("model", "verify", REPO).exit_code == 2


def test_a_lock_of_another_commit_is_refused_with_the_revision_to_set(
    repo: HubServer, tmp_path: Path
) -> None:
    lock = tmp_path / "wan.lock.json"
    assert command("model", "lock", REPO, "--output", lock).exit_code == 0
    assert repo.fetched() == []
    old = repo.commit(REPO)
    config = repo.repos[REPO] / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(ModelError, match="differs from its lock") as caught:
        framefleet.load_model(REPO, lock=lock)
    assert f"set `model.revision: {old}`" in caught.value.fix


def test_info_of_a_hub_model_fetches_headers_only(repo: HubServer, tmp_path: Path) -> None:
    ended = command("model", "info", REPO)
    assert ended.exit_code == 0, ended.output
    assert f"{REPO}@{repo.commit(REPO)}" in ended.stdout
    assert not list((tmp_path / "hf").rglob("*.safetensors"))
