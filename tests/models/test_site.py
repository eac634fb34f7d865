"""The documents as a site: every page is found, no link is dead, and everything public is explained."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import framefleet
from framefleet.pipeline import errors
from tools.reference import python_page

ROOT = Path(__file__).parents[2]


def test_the_site_is_built_without_a_dead_link(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"]
    ended = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    page = (tmp_path / "site" / "docs" / "reference" / "python.html").read_text("utf-8")
    assert "Render every row of a job" in page


def test_everything_public_is_in_the_reference() -> None:
    headings = set(re.findall(r"^### framefleet\.(\w+)$", python_page(), re.MULTILINE))
    assert headings == set(framefleet.__all__) - set(dir(errors))  # which have a table
