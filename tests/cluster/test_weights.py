"""Models from the hub and from object storage, rendered by `framefleet render`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fsspec
import gguf
import pytest

import framefleet
from framefleet.pipeline.errors import JobError
from framefleet.plugins.keep.replay.replay import replay
from framefleet.plugins.keep.replay.script import replay_script
from tests import jobs
from tests.commands import command
from tests.gguf_files import wan_weights, write_gguf
from tests.here import run_script
from tests.hub_server import HubServer, hub
from tests.jobs import job_values, prompt_rows, records_of, write_job, write_table
from tests.models.test_single_files import WEIGHTS, write
from tests.servers import S3Server
from tests.tiny import tiny

__all__ = ["hub"]  # a fixture

REPO = "studio/tiny-wan"
FLEET = {"workers": 2, "gpus_per_worker": 0}


@pytest.fixture
def values(tmp_path: Path) -> dict[str, object]:
    table = jobs.write_table(tmp_path / "t.parquet", jobs.prompt_rows(4))
    return jobs.job_values(table, tmp_path / "out") | {"media": {"embed": "id"}}  # "full" names the model


def nearby(values: dict[str, object], folder: Path, address: str) -> dict[str, object]:
    """The same rows with the model where it lies."""
    return {**values, "output": str(folder / "local"), "fleet": FLEET | {"address": address}}


def test_a_private_hub_model_renders_and_its_records_name_the_commit(
    hub: HubServer,
    tmp_path: Path,
    values: dict[str, object],
    ray_cluster: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.repos[REPO] = tiny("wan")
    hub.private.add(REPO)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    fleet = FLEET | {"workers": 1}
    job = jobs.write_job(tmp_path / "job.yaml", values | {"model": f"{REPO}@main", "fleet": fleet})
    printed = jobs.finish(
        jobs.start_render(job, is_cold=True)
    )  # the hub is named by variables that imports see
    commit = hub.commit(REPO)
    records = jobs.records_of(tmp_path / "out")
    assert {record["model"] for record in records} == {f"{REPO}@{commit}"}
    claim = json.loads((tmp_path / "out" / "job.json").read_text())
    assert (claim["job"]["model"]["path"], claim["job"]["model"]["revision"]) == (REPO, commit)
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert hub.token.encode() not in written + printed.encode()
    assert len(hub.fetched()) == len(set(hub.fetched())) == 3

    framefleet.render(nearby(values, tmp_path, ray_cluster))
    assert jobs.digests_by_tag(tmp_path / "out") == jobs.digests_by_tag(tmp_path / "local")

    row_id = records[0]["row_id"]
    assert replay(str(tmp_path / "out"), row_id).is_equal
    assert f"revision='{commit}'" in replay_script(str(tmp_path / "out"), row_id)


def test_a_model_in_object_storage_is_fetched_by_every_machine(
    s3_server: S3Server,
    tmp_path: Path,
    values: dict[str, object],
    ray_cluster: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path / "cache"))
    values["fleet"] = FLEET | {"address": ray_cluster}
    files = fsspec.filesystem("s3", **s3_server.storage_options)
    files.put(f"{tiny('wan')}/", f"{s3_server.url}/models/wan/", recursive=True)
    url = f"{s3_server.url}/models/wan"
    job = values | {"model": url, "storage_options": s3_server.storage_options}
    jobs.finish(jobs.start_render(jobs.write_job(tmp_path / "job.yaml", job)))
    framefleet.render(nearby(values, tmp_path, ray_cluster))
    assert jobs.digests_by_tag(tmp_path / "out") == jobs.digests_by_tag(tmp_path / "local")
    (record, *_) = jobs.records_of(tmp_path / "out")
    assert record["model"] == url
    with pytest.raises(JobError, match="diffusers opens no URLs"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            monkeypatch.setenv(name, s3_server.env[name])
        replay_script(str(tmp_path / "out"), record["row_id"])
    shutil.rmtree(tmp_path / "cache")
    assert replay(str(tmp_path / "out"), record["row_id"]).is_equal


def test_a_job_with_files_in_place_of_weights(hub: HubServer, tmp_path: Path, ray_cluster: str) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny("wan"), base)
    (base / "transformer" / WEIGHTS).unlink()
    write_gguf(wan_weights(), tmp_path / "wan-Q8_0.gguf", gguf.GGMLQuantizationType.Q8_0)
    table = write_table(tmp_path / "t.parquet", prompt_rows(4))
    values = job_values(table, tmp_path / "out", address=ray_cluster)
    # Next to the job file, as all that it names.
    model = {"path": "base", "parts": {"transformer": "wan-Q8_0.gguf"}}
    job = write_job(tmp_path / "job.yaml", values | {"model": model})
    planned = command("plan", job)
    assert f"transformer={tmp_path}/wan-Q8_0.gguf" in planned.stdout.replace("\n", "")
    assert "4 rows rendered in" in command("render", job).stderr
    records = records_of(tmp_path / "out")
    assert {record["model"] for record in records} == {f"{base} + transformer={tmp_path}/wan-Q8_0.gguf"}
    assert "gguf" in json.loads(records[0]["environment"])
    claim = json.loads((tmp_path / "out" / "job.json").read_text())
    assert "transformer.gguf" in claim["model_files"]

    row, out = records[0], str(tmp_path / "out")
    assert command("replay", out, row["row_id"]).exit_code == 0
    script = command("replay", out, row["row_id"], "--script").stdout
    assert "from_single_file" in script
    assert row["frames_sha256"] in run_script(script)
    hub.repos[REPO] = tmp_path / "repo"
    (tmp_path / "repo" / "gguf").mkdir(parents=True)
    shutil.copy(tmp_path / "wan-Q8_0.gguf", tmp_path / "repo" / "gguf" / "q8.gguf")
    (tmp_path / "repo" / "README.md").write_text("weights")
    given = framefleet.Given(parts={"transformer": f"{REPO}/gguf/q8.gguf"})
    script = replay_script(out, row["row_id"], given)
    assert f"https://huggingface.co/{REPO}/blob/main/gguf/q8.gguf', revision='{hub.commit(REPO)}'" in script
    assert str(tmp_path / "hf") not in script and row["frames_sha256"] in run_script(script)
    fsspec.filesystem("memory").put_file(str(tmp_path / "wan-Q8_0.gguf"), place := "memory://parts/q8.gguf")
    with pytest.raises(JobError, match=r"its transformer is from the file .* diffusers opens no URLs"):
        replay_script(out, row["row_id"], framefleet.Given(parts={"transformer": place}))
    moved = tmp_path / "elsewhere.gguf"
    shutil.move(tmp_path / "wan-Q8_0.gguf", moved)
    assert "does not exist" in command("replay", out, row["row_id"]).stderr
    assert command("replay", out, row["row_id"], "--part", f"transformer={moved}").exit_code == 0
    write(wan_weights(), tmp_path / "other.safetensors")
    other = command("replay", out, row["row_id"], "--part", f"transformer={tmp_path}/other.safetensors")
    assert other.exit_code == 2  # other files are another model
