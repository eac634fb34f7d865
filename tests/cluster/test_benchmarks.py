"""Every benchmark still runs, as short as it can: its figures mean nothing then, and are not looked at."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from unittest import mock

import pytest
import torch

from tests.jobs import ROOT
from tests.warm.process import start

# What each prints last.
PROGRAMS = {
    "audit": (["--rows", "2"], "a renderer keeps the pipeline as it is"),
    "bench": (["--short"], "the driver's memory as the first worker is ready"),
    "load": (["--short"], "| float32 | framefleet |"),
    "real_width": (["--tiny", "--dtype", "fp32"], "pinned:"),
    "start": (["--short"], "| plan |"),
    "training": (["--short"], "bf16, checkpointing"),
}


def run(name: str, arguments: Sequence[str]) -> None:
    """Run a program in this process, which has imported torch and diffusers."""
    with mock.patch.object(sys, "argv", [name, *arguments]):
        import_module(f"tests.benchmarks.{name}").main()


def test_every_program_is_here() -> None:
    files = (ROOT / "tests/benchmarks").glob("*.py")
    assert {file.stem for file in files if "__main__" in file.read_text("utf-8")} == set(PROGRAMS)


@pytest.mark.parametrize("name", ["audit", "load", "real_width", "start"])
def test_it_runs_to_its_end(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, last = PROGRAMS[name]
    run(name, arguments)
    assert last in capsys.readouterr().out


@pytest.mark.parametrize("name", ["bench", "training"])
def test_one_that_starts_others_runs_to_its_end(name: str) -> None:
    arguments, last = PROGRAMS[name]
    process = start("-m", f"tests.benchmarks.{name}", *arguments, stderr=subprocess.PIPE)
    printed, told = process.communicate()
    assert process.returncode == 0, told
    assert last in printed


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
@pytest.mark.parametrize("name", ["load", "real_width", "training"])
def test_without_a_gpu_it_says_what_is_missing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(name, ["--device", "cuda"])
    assert "--device cuda needs a GPU, and torch finds none" in capsys.readouterr().err
