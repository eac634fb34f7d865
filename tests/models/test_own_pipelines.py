"""A pipeline of a user's own: an installed plugin names it, `plan` its package, and row_ids its file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs import job_values, prompt_rows, write_job, write_table
from tests.tiny import tiny

PIPELINE = """
from diffusers import WanPipeline

class LouderWan(WanPipeline):
    @property
    def guidance_scale(self):
        return self._guidance_scale * 2
"""
PLUGIN = """
from framefleet.pipeline.plugin import Plugin
from framefleet.api.families import Family

FAMILIES = [Family(prefix="LouderWan", fps=16.0, pipelines={"LouderWan": "my_pipelines"})]
PLUGIN = Plugin(families=["my_plugin:FAMILIES"])
"""
ROW = """
import sys
from framefleet import Renderer, Request, load_model
from tests.tiny import SMALLEST

renderer = Renderer(load_model(sys.argv[1], dtype="fp32"))
(clip,) = renderer.render([Request(arguments=SMALLEST["wan"] | {"prompt": "a"}, seed=1)], progress=False)
print(type(renderer.model.pipe).__name__, clip.row_id)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a folder with an installed package: a pipeline, and a plugin that names it."""
    place = tmp_path / "site"
    installed = place / "my_pipelines-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-pipelines\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[framefleet.plugins]\nmine = my_plugin:PLUGIN\n")
    (installed / "top_level.txt").write_text("my_pipelines\nmy_plugin\n")
    (place / "my_pipelines.py").write_text(PIPELINE)
    (place / "my_plugin.py").write_text(PLUGIN)
    return place


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny("wan"), tmp_path / "model"))
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "LouderWan"}))
    return folder


def run(*arguments: str, package: Path | None = None) -> subprocess.CompletedProcess[str]:
    places = [str(package), os.getcwd()] if package else [os.getcwd()]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=240
    )


def test_plan_names_the_package_and_without_it_the_model_is_refused(
    tmp_path: Path, package: Path, model: Path
) -> None:
    values = job_values(write_table(tmp_path / "t.parquet", prompt_rows(2)), tmp_path / "out")
    job = str(write_job(tmp_path / "job.yaml", values | {"model": {"path": str(model), "dtype": "fp32"}}))
    planned = run("-m", "framefleet", "plan", job, package=package)
    assert "(LouderWan from the package my-pipelines 1.0" in planned.stdout, planned.stderr
    refused = run("-m", "framefleet", "plan", job)
    assert refused.returncode == 2 and "LouderWan" in refused.stderr, refused.stderr


def test_the_file_of_the_pipeline_is_part_of_each_row_id(package: Path, model: Path) -> None:
    def row() -> list[str]:
        ran = run("-c", ROW, str(model), package=package)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.splitlines()[-1].split()

    first = row()
    (package / "my_pipelines.py").write_text(PIPELINE.replace("* 2", "* 3"))
    second = row()
    assert first[0] == second[0] == "LouderWan"
    assert first[1] != second[1]
