"""Hub models, from a real server: fetched once, named by their commit, held against the hub's digests."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path

import huggingface_hub.constants
import pytest

import framefleet
from framefleet.pipeline.errors import ModelError, ServiceError
from framefleet.pipeline.model.lora import Lora, fetch_lora
from framefleet.pipeline.model.sources.source import open_source
from framefleet.pipeline.model.sources.weights import fetched_files, open_weights
from tests.commands import command
from tests.hub_server import HubServer
from tests.model_files import model_files
from tests.tiny import SMALLEST, tiny
from tests.warm.process import start

REPO = "studio/tiny-wan"
WEIGHTS = "vae/diffusion_pytorch_model"
BESIDE = ("README.md", f"{WEIGHTS}.fp16.safetensors", f"{WEIGHTS}.bin", "x.py")


@pytest.fixture
def repo(hub: HubServer, tmp_path: Path) -> HubServer:
    folder = shutil.copytree(tiny("wan"), tmp_path / "repo")
    for name in BESIDE:
        (folder / name).write_bytes(b"never loaded")
    hub.repos[REPO] = folder
    return hub


def test_a_hub_model_renders_and_is_named_by_its_commit(repo: HubServer, tmp_path: Path) -> None:
    model = framefleet.load_model(REPO)
    arguments = {"prompt": "a", "max_sequence_length": 32, **SMALLEST["wan"]}
    request = framefleet.Request(arguments=arguments, seed=1)
    local = framefleet.load_model(tiny("wan"))
    (clip,), (same,) = (framefleet.Renderer(m).render([request]) for m in (model, local))
    assert isinstance(clip, framefleet.Clip) and isinstance(same, framefleet.Clip)
    assert (clip.row_id, clip.frames_sha256) == (same.row_id, same.frames_sha256)
    assert model.settings.name == f"{REPO}@{repo.commit(REPO)}"
    names = {path.name for path in (tmp_path / "hf").rglob("*")}
    assert names.isdisjoint(Path(name).name for name in BESIDE[:3])


def test_a_worker_asks_the_hub_nothing_when_all_is_in_the_cache(repo: HubServer) -> None:
    source = open_source(REPO)
    expected = open_weights(source).digests()
    fetched_files(source, expected, expected)
    repo.requests.clear()
    again = open_source(REPO, revision=source.revision)
    _, found = fetched_files(again, expected, expected)
    assert found == expected
    assert repo.requests == []


def test_workers_that_start_together_fetch_every_file_once(repo: HubServer) -> None:
    source = open_source(REPO)
    files = [*open_weights(source).digests()]
    fetch = f"""
from framefleet.pipeline.model.sources.source import open_source
print(open_source({REPO!r}, revision={source.revision!r}).fetch({files!r}))
"""
    workers = [start("-c", fetch, is_cold=True, stderr=subprocess.PIPE) for _ in range(3)]
    ended = [worker.communicate(timeout=280) for worker in workers]
    assert len({folder for folder, _ in ended}) == 1, ended
    assert not any(worker.returncode for worker in workers), ended
    assert len(repo.fetched()) == len(set(repo.fetched())) == 3


def test_a_private_model_wants_the_token_and_nothing_shows_it(
    repo: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.private.add(REPO)
    with pytest.raises(ModelError, match="neither a folder here nor a readable model on the hub") as caught:
        open_source(REPO)
    assert "HF_TOKEN" in caught.value.fix
    repo.gated.add(REPO)
    monkeypatch.setenv("HF_TOKEN", repo.token)
    with pytest.raises(ModelError, match="is gated") as caught:
        open_source(REPO)
    assert "accept its terms" in caught.value.fix
    repo.gated.clear()
    model = framefleet.load_model(REPO)
    assert repo.token not in repr(model.settings) + repr(model.environment)
    ended = command("model", "info", REPO, "-v", exits=0)
    assert repo.token not in ended.output


def test_a_revision_that_does_not_exist_or_cannot_be_is_refused(repo: HubServer) -> None:
    for path, revision, problem in (
        (REPO, "v9", "has no revision 'v9'"),
        (REPO, "0" * 40, f"has no revision '{'0' * 40}'"),
        (str(tiny("wan")), "main", "is not a model on the hub"),
        (f"{REPO}@main", "v2", "names a revision, but the job has another one"),
    ):
        with pytest.raises(ModelError, match=problem):
            open_weights(open_source(path, revision=revision))


def test_offline_a_model_is_taken_from_the_cache_where_it_is_whole(
    repo: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_weights(open_source(REPO)).configs()
    models = []
    for is_offline in (True, False, True):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", is_offline)
        repo.requests.clear()
        problem = "is not complete in the cache, and HF_HUB_OFFLINE is set"
        with nullcontext() if models or not is_offline else pytest.raises(ServiceError, match=problem):
            models.append(framefleet.load_model(REPO))
    online, offline = models
    assert (offline.digest, offline.settings) == (online.digest, online.settings)
    assert repo.requests == []


def test_a_hub_that_cannot_be_reached_ends_with_3(repo: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ServiceError, match=r"the hub does not answer: (?!Got)") as caught:
        open_source(REPO, revision="v2")
    assert caught.value.fix.endswith(f"hf download {REPO} --revision v2")


def test_what_the_cache_lacks_while_the_hub_cannot_be_reached_is_not_the_models_fault(
    repo: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(REPO)
    open_weights(source).configs()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    problem = "is not complete in the cache, and the hub does not answer"
    for again in (open_source(REPO), open_source(REPO, revision=source.revision)):
        with pytest.raises(ServiceError, match=problem):
            open_weights(again)
    with pytest.raises(ServiceError, match=problem):
        fetch_lora("style", Lora(path=REPO, revision=source.revision))


@pytest.mark.parametrize("file", ["vae/diffusion_pytorch_model.safetensors", "vae/config.json"])
def test_a_file_that_changed_in_the_cache_is_refused_and_fetched_anew_once_deleted(
    file: str, repo: HubServer
) -> None:
    folder, _ = open_weights(open_source(REPO)).fetched()
    assert "as named in the cache" in command("model", "verify", REPO).stdout
    blob = (folder / file).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b" ")
    with pytest.raises(ModelError, match=f"{file} is corrupted") as caught:
        framefleet.load_model(REPO)
    assert f"delete {blob}" in caught.value.fix
    ended = command("model", "verify", REPO)
    assert ended.exit_code == 2 and f"{file} is corrupted" in ended.stderr
    blob.unlink()
    assert framefleet.load_model(REPO).digests == model_files(tiny("wan"))


def test_a_lock_of_another_commit_is_refused_with_the_revision_to_set(
    repo: HubServer, tmp_path: Path
) -> None:
    lock = tmp_path / "wan.lock.json"
    assert command("model", "lock", REPO, "--output", lock).exit_code == 0
    locked = {name: file["sha256"] for name, file in json.loads(lock.read_text())["files"].items()}
    assert locked == model_files(tiny("wan")) and repo.fetched() == []
    old = repo.commit(REPO)
    config = repo.repos[REPO] / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(ModelError, match="differs from its lock") as caught:
        framefleet.load_model(REPO, lock=lock)
    assert f"set `model.revision: {old}`" in caught.value.fix


def test_info_of_a_hub_model_fetches_headers_only(repo: HubServer, tmp_path: Path) -> None:
    ended = command("model", "info", REPO, exits=0)
    assert f"{REPO}@{repo.commit(REPO)}" in ended.stdout
    assert not list((tmp_path / "hf").rglob("*.safetensors"))
