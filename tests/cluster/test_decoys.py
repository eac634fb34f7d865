"""A table may come with modules beside it: none of them runs in a worker, or in a process that one starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import framefleet
from tests.jobs import job_values, prompt_rows, write_table

NAMES = ("json", "numpy", "PIL", "ray", "this", "torch", "wave")
RECIPE = """
import multiprocessing
import subprocess
import sys

import own_words
from framefleet.pipeline.recipes.catalog import generate


def spies(pipe, request):
    import wave

    subprocess.run([sys.executable, "-c", "import json, numpy, this, wave"], check=True)
    subprocess.run([sys.executable, "-m", "wave"], check=True)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(own_words.said)
    return generate(pipe, request)
"""


def test_modules_beside_a_table_run_nowhere(
    tmp_path: Path, ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        Path(f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write(__file__)")
    Path("spying.py").write_text(RECIPE)
    Path("own_words.py").write_text("def said():\n    return 'a word'\n")
    job = job_values(
        write_table(tmp_path / "t.parquet", prompt_rows(2)),
        tmp_path / "out",
        address=ray_cluster,
        recipe="spying:spies",
    )
    assert framefleet.render(job).done == 2, "modules of the user's own are found"
    assert not Path("ran").exists(), Path("ran").read_text()
