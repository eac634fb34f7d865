"""The documents as a site: every page is found, no link is dead, and everything public is explained."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import framefleet

ROOT = Path(__file__).parents[2]


def test_the_site_is_built_without_a_dead_link(tmp_path: Path) -> None:
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--quiet",
            "--site-dir",
            str(tmp_path / "site"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    page = (tmp_path / "site" / "docs" / "api.html").read_text("utf-8")
    assert "Render every row of a job" in page, "docstrings are in it"


def test_everything_public_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    told = {line.rpartition(".")[2] for line in re.findall(r"^::: (\S+)$", text, re.MULTILINE)}
    assert set(framefleet.__all__) - {"FramefleetError"} <= told  # errors are there as a module
