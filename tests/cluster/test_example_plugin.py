"""The plugin in examples/: installed by pip as a stranger's, rendered with, and asked by its command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from textwrap import dedent

import numpy as np

from framefleet.pipeline.outputs.media.media import decode
from tests.jobs import job_values, prompt_rows, write_job, write_table

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
