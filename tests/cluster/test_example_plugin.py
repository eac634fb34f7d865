"""Plugins of strangers: that of examples/, installed by pip, and one that renders until enough are good."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from textwrap import dedent

import numpy as np
import pyarrow.parquet as pq

from framefleet.pipeline.outputs.media.media import decode
from tests.jobs import job_values, prompt_rows, records_of, write_job, write_table

PAINT = """
    import io, json, sys
    import numpy as np
    from framefleet.pipeline.outputs.media.media import encode
    from framefleet.pipeline.outputs.media.media_settings import Media

    seed = json.load(sys.stdin)["seed"]
    frames = np.full((4, 16, 16, 3), 40 + 60 * seed, np.uint8)
    sys.stdout.buffer.write(encode(frames, media=Media(format="mp4"), fps=8, metadata={}))
"""
EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"


def run(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, *map(str, arguments)]
    return subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, text=True, capture_output=True)


def test_an_installed_plugin_adds_a_score_a_recipe_formats_and_a_command(tmp_path: Path) -> None:
    assert len((EXAMPLE / "framefleet_arrays.py").read_text().splitlines()) <= 80
    shutil.copytree(EXAMPLE, tmp_path / "plugin")  # pip builds in the folder
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--target", tmp_path / "installed"]
    installed = run(tmp_path, "-m", "pip", "install", *options, tmp_path / "plugin")
    assert installed.returncode == 0, installed.stderr
    table = write_table(tmp_path / "t.parquet", prompt_rows(2))
    job = write_job(
        tmp_path / "job.yaml", job_values(table, tmp_path / "out", arrays={"npy": True}, recipe="unguided")
    )
    ended = run(tmp_path / "installed", "-m", "framefleet", "render", job)
    assert ended.returncode == 0, ended.stderr
    clips = sorted((tmp_path / "out" / "clips").rglob("*.npy"))
    assert [np.load(clip).dtype for clip in clips] == [np.uint8, np.uint8]
    shown = run(tmp_path / "installed", "-m", "framefleet", "brightest", tmp_path / "out")
    brightest = max(clips, key=lambda clip: float(np.load(clip).mean()))
    assert shown.stdout.strip() == str(brightest.relative_to(tmp_path / "out")), shown.stderr
    again = run(tmp_path / "installed", "-m", "framefleet", "render", job, "--set", "arrays.npy=false")
    assert (again.returncode, "arrays.npy: True there, False here" in again.stderr) == (2, True)
    export = ["-m", "framefleet", "export", tmp_path / "out", tmp_path / "set", "--format"]
    exported = run(tmp_path / "installed", *export, "zip")
    assert exported.returncode == 0 and "read it with zipfile" in exported.stderr, exported.stderr
    with zipfile.ZipFile(tmp_path / "set" / "shard-000000.zip") as archive:
        assert {*archive.namelist()} == {str(clip.relative_to(tmp_path / "out")) for clip in clips}
    refused = run(tmp_path / "installed", *export, "tar")
    assert refused.returncode == 2 and "use webdataset, " in refused.stderr and ", zip" in refused.stderr
    verified = run(tmp_path / "installed", "-m", "framefleet", "verify", tmp_path / "out")
    assert verified.returncode == 0, verified.stderr
    recipes = ["generate", "unguided"] * 4
    mixed = [row | {"recipe": recipe} for row, recipe in zip(prompt_rows(8), recipes, strict=True)]
    values = job_values(write_table(tmp_path / "m.parquet", mixed), tmp_path / "mixed", arrays={"npy": True})
    both = run(tmp_path / "installed", "-m", "framefleet", "render", write_job(tmp_path / "m.yaml", values))
    assert both.returncode == 0, both.stderr
    alone = [row["batch_size"] for row in records_of(tmp_path / "mixed") if row["recipe"] == "unguided"]
    assert alone == [1] * 4
    verified = run(tmp_path / "installed", "-m", "framefleet", "verify", tmp_path / "mixed")
    assert verified.returncode == 0, verified.stderr
    (tmp_path / "paint.py").write_text(dedent(PAINT))
    engine = {"type": "program", "model": "paint", "program": [sys.executable, str(tmp_path / "paint.py")]}
    values = {"table": str(table), "output": str(tmp_path / "painted"), "engine": engine}
    painted = run(
        tmp_path / "installed", "-m", "framefleet", "render", write_job(tmp_path / "p.yaml", values)
    )
    assert painted.returncode == 0, painted.stderr
    clips = sorted((tmp_path / "painted" / "clips").rglob("*.mp4"))
    shades = {int(decode(clip.read_bytes()).mean()) for clip in clips}
    assert len(shades) == 2  # that of each row's seed


PLUGIN = """
    from dataclasses import replace
    from pathlib import Path

    import pyarrow.parquet as pq

    from framefleet.api import JobRunner
    from framefleet.api import Plugin
    from framefleet.jobs.job.section import Section
    from framefleet.pipeline.outputs.output import Output

    class EnoughSection(Section):
        '''Rows are rendered in the table's order until enough of them are good.'''
        good: int
        where: str

    class EnoughRunner(JobRunner):
        section = "enough"

        def render(self, job, watch, scope, *, run):
            rows, enough = pq.read_table(scope.table or job.table), job.enough
            for num_rows in range(enough.good, len(rows) + 1):
                part = Path(job.output).with_name(f"first_{num_rows}.parquet")
                pq.write_table(rows[:num_rows], part)
                summary = run(job, watch, replace(scope, table=str(part)))
                good = sum(map(len, Output(summary.store).records(["row_id"], where=enough.where)))
                watch.say(f"{good} of {num_rows} rows are good")
                if good >= enough.good:
                    break
            return summary

    PLUGIN = Plugin(
        sections={"enough": "enough_package:EnoughSection"}, runners=["enough_package:EnoughRunner"]
    )
"""


def test_a_plugin_renders_rows_until_enough_are_good(tmp_path: Path, ray_cluster: str) -> None:
    (tmp_path / "enough_package.py").write_text(dedent(PLUGIN))
    about = tmp_path / "enough_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: enough-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[framefleet.plugins]\nenough = enough_package:PLUGIN\n")
    table = write_table(tmp_path / "t.parquet", prompt_rows(6))
    values = job_values(table, tmp_path / "out", address=ray_cluster, scores=["sharpness"])
    enough = {"good": 2, "where": "seed >= 1"}  # the third row is the second good one
    job = write_job(tmp_path / "job.yaml", values | {"enough": enough})
    ended = run(tmp_path, "-m", "framefleet", "render", job)
    assert ended.returncode == 0, ended.stderr
    assert "1 of 2 rows are good" in ended.stderr and "2 of 3 rows are good" in ended.stderr
    assert sorted(record["seed"] for record in records_of(tmp_path / "out")) == [0, 1, 2]
    assert run(tmp_path, "-m", "framefleet", "add", job, table).returncode == 2
    again = run(tmp_path, "-m", "framefleet", "render", job)
    assert (again.returncode, "nothing to do" in again.stderr) == (0, True)
    assert pq.read_table(tmp_path / "first_3.parquet").num_rows == 3
    refused = run(tmp_path, "-m", "framefleet", "render", job, "--set", "enough.goood=2")
    assert "did you mean `enough.good`?" in refused.stderr

    drafted = {"num_inference_steps": 1, "keep": {"where": "true"}}
    both = values | {"enough": enough, "draft": drafted, "output": str(tmp_path / "both")}
    ended = run(tmp_path, "-m", "framefleet", "render", write_job(tmp_path / "both.yaml", both))
    assert ended.returncode == 0, ended.stderr
    assert len(records_of(tmp_path / "both")) == len(records_of(tmp_path / "both/drafts")) == 3
