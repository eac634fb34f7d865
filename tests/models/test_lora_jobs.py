"""Jobs with LoRAs, without Ray: where these come from, once, what outputs remember, and what is refused."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import huggingface_hub.constants
import pytest

from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.job_json import read_claim
from framefleet.jobs.job.model import open_models
from framefleet.jobs.render.claim import check_claim, claim
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import JobError, ModelError, ServiceError
from framefleet.pipeline.model.lora import Lora, fetch_lora
from framefleet.pipeline.model.sources.integrity import sha256_of
from framefleet.pipeline.rows.tables.rows import InvalidRow
from tests.hub_server import HubServer
from tests.jobs import job_values, prompt_rows, write_table
from tests.loras import save_lora
from tests.tiny import tiny
from tests.two_models import two_model_rows, two_models


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("loras")
    return {name: str(save_lora("wan", name, folder / name)) for name in ("style", "detail")}


def values_of(folder: Path, loras: dict[str, Any], cell: str | None) -> dict[str, Any]:
    table = write_table(folder / "t.parquet", [row | {"lora": cell} for row in prompt_rows(2)])
    return job_values(table, folder / "out") | {"loras": loras}


def resolved(folder: Path, loras: dict[str, Any]) -> ResolvedJob:
    return resolve_job(load_job(values_of(folder, loras, None)), Callback())


def test_loras_may_be_added_to_an_output_and_left_out_and_not_changed(
    tmp_path: Path, files: dict[str, str]
) -> None:
    first = resolved(tmp_path, {"style": files["style"]})
    claim(first)
    style = json.loads(first.store.read("job.json"))["job"]["loras"]["style"]
    assert Path(style["path"], style["file"]) == Path(files["style"])  # as other machines find it
    assert len(style["sha256"]) == 64
    first.store.create("clips/ab/ab.mp4", b"a clip")
    claim(resolved(tmp_path, {"detail": files["detail"]}))
    assert sorted(read_claim(first.store).job.loras) == ["detail", "style"]
    assert check_claim(resolved(tmp_path, {}))
    with pytest.raises(JobError, match=r"loras\.style\.sha256: \w{64} there, \w{64} here"):
        claim(resolved(tmp_path, {"style": files["detail"]}))


def test_a_lora_that_no_row_uses_changes_no_row(tmp_path: Path, files: dict[str, str]) -> None:
    def row_ids(loras: dict[str, Any]) -> list[str]:
        job = resolved(tmp_path, loras)
        rows = [row for first, batch in job.table.batches() for row in job.first.plan.rows(first, batch)]
        return [job.first.identity(row.request) for row in rows]  # type: ignore[union-attr]

    assert row_ids({}) == row_ids(files)


def test_loras_that_the_model_has_no_layers_for_are_refused(tmp_path: Path, files: dict[str, str]) -> None:
    for model, lora, message in (
        ("svd", files["style"], "StableVideoDiffusionPipeline takes no LoRAs"),
        (
            "wan",
            {"path": files["style"], "component": "transformer_2"},
            r"it has no layer for transformer_2\.blocks\.0",
        ),
    ):
        values = values_of(tmp_path, {"style": lora}, None) | {"model": str(tiny(model))}
        with pytest.raises(ModelError, match=message):
            resolve_job(load_job(values), Callback())


def test_a_row_whose_model_the_lora_does_not_fit_says_why(tmp_path: Path, files: dict[str, str]) -> None:
    rows = [row | {"lora": "style"} for row in two_model_rows(2)]
    with closing(resolve_job(load_job(two_models(tmp_path, rows, loras=files)), Callback())) as job:
        assert {*job.models["wan"].settings.loras} == {*files} and not job.models["ltx"].settings.loras
        of_wan, of_ltx = (row for first, batch in job.table.batches() for row in job.rows.read(first, batch))
    assert not isinstance(of_wan, InvalidRow) and isinstance(of_ltx, InvalidRow)
    ((problem, fix),) = of_ltx.messages()
    assert problem.startswith("row 1: lora is 'style', but loras.style: /")
    assert "does not fit LTXPipeline: " in problem and fix


def test_ulysses_is_refused_together_with_loras_that_fit_its_model(
    tmp_path: Path, files: dict[str, str]
) -> None:
    placed = {"device": "cpu", "placement": {"type": "ulysses", "devices": 2}}
    values = values_of(tmp_path, {"style": files["style"]}, None)
    message = "placement: ulysses and model.loras are both set"
    with pytest.raises(ModelError, match=message):
        open_models(load_job(values | {"model": {"path": str(tiny("wan")), **placed}}))
    values = two_models(tmp_path, two_model_rows(2), loras=files)
    for name, problem in (
        ("wan", message),
        ("ltx", "no context parallel plan"),
    ):  # its LoRAs are not the reason
        models = {**values["models"], name: {"path": str(tiny(name)), **placed}}
        with pytest.raises(ModelError, match=problem):
            open_models(load_job(values | {"models": models}))


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
