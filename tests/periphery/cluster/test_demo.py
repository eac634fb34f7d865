"""`framefleet demo` as a newcomer runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import framefleet
from framefleet.plugins.demo.prepare import MODEL
from tests.commands import TELLING_IMPORTS
from tests.jobs import ROOT

README = (ROOT / "README.md").read_text("utf-8")
WORDS = "一个黄色的星星在紫色背景上变大"


@pytest.mark.timeout(300)
def test_ones_own_words_become_clips_and_pictures(tmp_path: Path) -> None:
    # Once a model's classes were asked, what they said is kept.
    framefleet.plan({"sweep": {"prompt": [WORDS]}, "output": str(tmp_path / "none"), "model": str(MODEL)})
    ended = subprocess.run(
        [sys.executable, "-c", TELLING_IMPORTS, "demo", WORDS, "--output", "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    said = dict(line.split(":", 1) for line in ended.stdout.splitlines())
    assert list(said) == ["clips", "contact sheet", "animation"]
    assert all((tmp_path / place.strip()).exists() for place in said.values())
    assert len(list((tmp_path / said["clips"].strip()).rglob("*.mp4"))) == 4
    assert "warning" not in ended.stderr and "note" not in ended.stderr
    (sample,) = re.findall(r"^    \d+ rows rendered in .*\n(?:    .*\n)+", README, re.M)
    labels = {line.partition(":")[0].strip() for line in sample.splitlines()[2:]}
    assert labels == {"records", "gallery", *said}
    assert all(f"\n{label}: " in ended.stderr for label in labels - {*said})
    assert re.search(r"^\d+ rows rendered in \d+:\d\d, mean batch ", ended.stderr, re.M)
    imported = ended.stderr.splitlines()[-1].split()
    assert "ray" in imported and not {"torch", "diffusers", "transformers"} & {*imported}, imported


@pytest.mark.timeout(300)
def test_python_renders_words_of_ones_own(tmp_path: Path) -> None:
    summary = framefleet.demo([WORDS], output=tmp_path / "demo", size="9x64x64", seeds=2)
    assert (summary.done, summary.failed) == (2, 0)
    assert (tmp_path / "demo/contact-sheet.png").exists() and (tmp_path / "demo/demo.gif").exists()
