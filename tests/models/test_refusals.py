"""What a job is refused for before a worker starts: every one with exit code 2, the place, and the fix."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

import framefleet
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.claim import _description
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import UserError
from tests.commands import command
from tests.hub_server import HubServer, hub
from tests.jobs import job_values, prompt_rows, write_table
from tests.loras import save_lora
from tests.media_files import video_file
from tests.pictures import write_starts
from tests.tiny import tiny
from tests.web_server import WebServer, web_server

__all__ = ["hub"]  # a fixture

Values = dict[str, Any]
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def values(tmp_path: Path) -> Values:
    """A job on a copy of the tiny Wan that can be spoiled."""
    model = shutil.copytree(tiny("wan"), tmp_path / "model")
    job = job_values(write_table(tmp_path / "t.parquet", prompt_rows(2)), tmp_path / "out")
    return job | {"model": {"path": str(model)}}


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture
def from_image(tmp_path: Path) -> Callable[[str], Values]:
    """A job on the tiny image-to-video Wan, every row of which names this image."""

    def job(image: str) -> Values:
        rows = prompt_rows(2, image=image)
        return job_values(write_table(tmp_path / "t.parquet", rows), tmp_path / "out", model="wan_i2v")

    return job


def refused(values: Values) -> tuple[str, str]:
    """Return the problem and the fix of a job that must not start."""
    with pytest.raises(UserError) as raised:
        framefleet.render(values)
    assert raised.value.exit_code == 2
    assert not ray.is_initialized()
    assert not Path(values["output"]).exists()
    return raised.value.problem, raised.value.fix


def model_of(values: Values) -> Path:
    return Path(values["model"]["path"])


def test_a_corrupted_shard(values: Values) -> None:
    assert command("model", "lock", values["model"]["path"]).exit_code == 0
    content = bytearray((model_of(values) / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (model_of(values) / WEIGHTS).write_bytes(content)
    problem, fix = refused(values)
    assert f"{WEIGHTS} is corrupted or another file" in problem
    assert "fetch it again" in fix


def test_a_truncated_shard(values: Values) -> None:
    content = (model_of(values) / WEIGHTS).read_bytes()
    (model_of(values) / WEIGHTS).write_bytes(content[:-1])
    problem, fix = refused(values)
    assert f"{len(content) - 1} bytes, but its header says {len(content)}" in problem
    assert fix == "fetch it again"


def test_a_revision_that_the_hub_has_not(values: Values, hub: HubServer) -> None:
    hub.repos["studio/tiny-wan"] = tiny("wan")
    values["model"] = {"path": "studio/tiny-wan", "revision": "no-such-branch"}
    problem, fix = refused(values)
    assert "no-such-branch" in problem
    assert "revision" in fix


def test_a_missing_file(values: Values) -> None:
    (model_of(values) / "vae" / "config.json").unlink()
    problem, fix = refused(values)
    assert "vae/config.json does not exist" in problem
    assert "download the whole model" in fix


def test_a_pickle(values: Values) -> None:
    weights = model_of(values) / WEIGHTS
    weights.unlink()
    torch.save({"weight": torch.zeros(1)}, weights.with_suffix(".bin"))
    problem, fix = refused(values)
    assert "is a pickle, which can run code" in problem
    assert "model.allow_pickle: true" in fix


def test_an_absent_text_encoder(values: Values) -> None:
    shutil.rmtree(model_of(values) / "text_encoder")
    problem, fix = refused(values)
    assert "text_encoder" in problem
    assert "fetch the model again" in fix


def test_an_image_behind_a_dead_url(from_image: Callable[[str], Values], web: WebServer) -> None:
    values = from_image(f"{web.url}/no-such.png?signature=secret")
    values["inputs"] = {"roots": [web.url]}
    problem, _ = refused(values)
    assert f"row 0: image is '{web.url}/no-such.png', but it cannot be read: 404 Not Found" in problem
    assert "secret" not in problem


def test_secrets_of_urls_are_not_in_job_json(from_image: Callable[[str], Values], web: WebServer) -> None:
    values = from_image(f"{web.url}/img/a.png")
    host = web.url.removeprefix("http://")
    values["inputs"] = {"roots": [web.url, "https://me:hidden-word@elsewhere/x"]}
    values["defaults"]["image"] = f"{web.url}/img/a.png?signature=hidden-word"
    described = json.dumps(_description(resolve_job(load_job(values), Callback())))
    assert host in described and "elsewhere" in described
    assert "hidden-word" not in described


def test_an_image_outside_of_what_the_table_may_read(from_image: Callable[[str], Values]) -> None:
    problem, _ = refused(from_image("/etc/hostname"))
    assert "it lies outside of inputs.roots; add '/etc' to inputs.roots" in problem


def test_an_image_that_is_a_video(from_image: Callable[[str], Values], tmp_path: Path) -> None:
    (tmp_path / "clip.png").write_bytes(video_file())
    problem, _ = refused(from_image("clip.png"))
    assert "row 0: image is 'clip.png', but it is a video" in problem


def test_an_image_that_is_text(from_image: Callable[[str], Values], tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("no image")
    problem, _ = refused(from_image("note.png"))
    assert "row 1: image is 'note.png', but it is not an image" in problem


def test_a_row_whose_recipe_calls_another_pipeline_than_the_job(tmp_path: Path) -> None:
    write_starts(tmp_path, num_frames=1)
    rows = prompt_rows(2, image="picture-0.png", recipe=None)
    rows[1]["recipe"] = "generate"  # the same components, called as text to video
    table = write_table(tmp_path / "t.parquet", rows)
    values = job_values(table, tmp_path / "out", model="wan_ti2v", recipe="image_to_video")
    problem, _ = refused(values)
    assert "row 1: recipe is 'generate'" in problem
    assert "takes other arguments than the job's recipe 'image_to_video'" in problem


def test_five_frames_of_cogvideox(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.parquet", prompt_rows(1, num_frames=5))
    problem, _ = refused(job_values(table, tmp_path / "out", model="cogvideox"))
    assert "row 0: num_frames is 5, but CogVideoX renders 8k + 1 frames; use 1 or 9" in problem


def test_a_scheduler_of_another_kind_of_model(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.parquet", prompt_rows(1, scheduler="euler_karras"))
    problem, fix = refused(job_values(table, tmp_path / "out"))
    assert "row 0: scheduler is 'euler_karras', but WanPipeline cannot use the scheduler" in problem
    assert "trained with flow matching" in problem
    assert "flow_euler" in problem + fix


def test_a_lora_for_another_model(values: Values, tmp_path: Path) -> None:
    values["loras"] = {"style": str(save_lora("cogvideox", "style", tmp_path))}
    problem, fix = refused(values)
    assert "loras.style" in problem
    assert "does not fit WanPipeline" in problem
    assert fix == "use a LoRA that was made for this model"


def test_a_lora_that_is_a_pickle(values: Values, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "style.bin")
    values["loras"] = {"style": str(tmp_path / "style.bin")}
    problem, fix = refused(values)
    assert "pickle" in problem
    assert "allow_pickle" in fix
