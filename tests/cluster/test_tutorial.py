"""The tutorial, as its script: swept, drafted, looked at, picked, exported, read back with prompts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.warm.process import ROOT, shell_environment

PROMPTS = ("a red ball bounces on black", "a blue star grows on white", "a green ring moves left on black")


def tutorial(folder: Path, seeds: str) -> str:
    """Run it from the top of the checkout; return what it printed."""
    own = {"SEEDS": seeds, "OUTPUT": str(folder / "out")}
    ended = subprocess.run(
        ["bash", "examples/tutorial.sh"],
        cwd=ROOT,
        env=shell_environment(folder) | own,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.ci
@pytest.mark.parametrize("seeds", ["0-0", pytest.param("0-19", marks=pytest.mark.long)])
def test_it_ends_with_the_picks_read_back_by_both_libraries(seeds: str, tmp_path: Path) -> None:
    printed = tutorial(tmp_path, seeds)
    num_seeds = int(seeds[2:]) + 1
    assert f"= {12 * num_seeds} rows" in printed, "it is counted before it runs"
    for library in ("webdataset", "datasets"):
        read = [line for line in printed.splitlines() if line.startswith(f"{library}: ")]
        assert len(read) == 6, "of each prompt two"
        assert {line[len(library) + 2 :].rpartition(", ")[0] for line in read} == set(PROMPTS)
    assert (tmp_path / "out/gallery/index.html").stat().st_size > 1000
    assert (tmp_path / "out/sheet.png").stat().st_size > 1000
