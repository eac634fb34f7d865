"""What a job is refused for before a worker starts: every one with exit code 2, the place, and the fix."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

import framefleet
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.claim import _description
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import UserError
from tests.commands import command
from tests.jobs import job_values, prompt_rows, write_table
from tests.model_files import flip_a_byte
from tests.pictures import write_starts
from tests.tiny import tiny
from tests.web_server import WebServer

Values = dict[str, Any]
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def values(tmp_path: Path) -> Values:
    """A job on a copy of the tiny Wan that can be spoiled."""
    model = shutil.copytree(tiny("wan"), tmp_path / "model")
    job = job_values(write_table(tmp_path / "t.parquet", prompt_rows(2)), tmp_path / "out")
    return job | {"model": {"path": str(model)}}


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


def corrupt_a_locked(model: Path) -> None:
    assert command("model", "lock", model).exit_code == 0
    flip_a_byte(model / WEIGHTS)


@pytest.mark.parametrize(
    ("spoil", "message", "hint"),
    [
        (corrupt_a_locked, f"{WEIGHTS} is corrupted or a different file", "fetch it again"),
        (lambda model: os.truncate(model / WEIGHTS, 9000), "9000 bytes, but its header", "fetch it again"),
        (lambda model: (model / "vae/config.json").unlink(), "config.json does not exist", "the whole model"),
        (lambda model: (model / WEIGHTS).rename(model / "transformer/a.bin"), "is a pickle", "allow_pickle"),
        (lambda model: shutil.rmtree(model / "text_encoder"), "text_encoder", "fetch the model again"),
    ],
)
def test_a_model_that_is_not_whole(
    spoil: Callable[[Path], object], message: str, hint: str, values: Values
) -> None:
    spoil(model_of(values))
    problem, fix = refused(values)
    assert message in problem and hint in fix


def test_secrets_of_urls_are_not_in_job_json(from_image: Callable[[str], Values], web: WebServer) -> None:
    values = from_image(f"{web.url}/img/a.png")
    host = web.url.removeprefix("http://")
    values["inputs"] = {"roots": [web.url, "https://me:hidden-word@elsewhere/x"]}
    values["defaults"]["image"] = f"{web.url}/img/a.png?signature=hidden-word"
    described = json.dumps(_description(resolve_job(load_job(values), Callback())))
    assert host in described and "elsewhere" in described
    assert "hidden-word" not in described


@pytest.mark.promise("Bad input is refused before a model is loaded")
def test_a_row_whose_recipe_calls_another_pipeline_than_the_job(tmp_path: Path) -> None:
    write_starts(tmp_path, num_frames=1)
    rows = prompt_rows(2, image="picture-0.png", recipe=None)
    rows[1]["recipe"] = "generate"  # the same components, called as text to video
    table = write_table(tmp_path / "t.parquet", rows)
    values = job_values(table, tmp_path / "out", model="wan_ti2v", recipe="image_to_video")
    problem, _ = refused(values)
    assert "row 1: recipe is 'generate'" in problem
    assert "takes other arguments than the job's recipe 'image_to_video'" in problem
