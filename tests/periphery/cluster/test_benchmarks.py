"""Every benchmark still runs, as short as it can: its figures mean nothing then, and are not looked at."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from unittest import mock

import pytest
import torch

from tests.browser.chromium import chromium
from tests.browser.shots import SHOTS
from tests.jobs import ROOT, write_table
from tests.tiny import SMALLEST, tiny
from tests.warm.process import start

# What each prints last.
PROGRAMS = {
    "audit": (["--rows", "2"], "a renderer keeps the pipeline as it is"),
    "audits_simulated": (["--jobs", "2", "--sizes", "100"], "| 100 |"),
    "bench": (["--short"], "| fp32 | uniform |"),
    "ceiling": ([], "with the renderer"),  # of a table and a model
    "checks": (["--short"], "a table planned"),
    "compared": (["--only", "weights"], "| after half of the rows, the weights change |"),
    "counts": (["alone"], "| alone |"),  # tests/models/test_counts.py
    "draft_ranks": (["--seeds", "2", "--prompts", "1"], "guidance 7 against 16 steps"),
    "gallery": (["--scenes", "1", "--seeds", "1"], "complaints of the console"),
    "gpu_assert": (["--device", "cpu"], "device assert: not measured"),
    "gpu_bits": (["--device", "cpu", "--tiny"], "kernel: math"),
    "gpu_compiled": (["--device", "cpu", "--tiny"], "products: compiled"),
    "gpu_day": (["--device", "cpu", "--small", "--minutes", "30"], "report.md"),
    "gpu_deterministic": (["--device", "cpu", "--tiny"], "decoder: hunyuan"),
    "gpu_neighbour": (["--device", "cpu", "--tiny"], "neighbour: not measured"),
    "gpu_peak": (["--device", "cpu", "--tiny"], "network: Wan 1.3B"),
    "gpu_placement": (["--device", "cpu", "--tiny"], "not measured: there are no two GPUs"),
    "gpu_squeezed": (["--device", "cpu", "--tiny"], "convolution: 3D"),
    "large": (["--short"], "| fp32 | uniform |"),
    "ledger": (["--short"], "| uniform | exact, remembered |"),
    "load": (["--short"], "| float32 | framefleet |"),
    "one_level": (["--short"], "in class: "),
    "prediction": (["--short"], "| MB of clips |"),
    "pixels": (["--short"], "| a recipe that looks |"),
    "marks": (["cost", "--short"], "| watermark |"),
    "probes": (["--rows", "2"], "remembered"),
    "real_rows": (["--tiny"], "way: fast"),
    "real_width": (["--tiny", "--dtype", "fp32"], "pinned:"),
    "release": (["--short"], "wheel built, no file missing"),
    "resume": (["--rows", "2000", "--ray-data"], "Ray Data: rows_per_s"),
    "start": (["--short"], "| plan |"),
    "suite_times": (["--only"], "| `make test-all` |"),
    "timesteps": (["--short"], "with fractions ("),
    "waits": (["alone"], "alone"),  # run by counts
    "training": (["--short"], "bf16, checkpointing"),
    "fire_systems": ([], "| 40 | 0 | 0 | 0 |"),  # run by under_fire
    "under_fire": (["--rows", "40", "--seeds", "1", "--systems", "framefleet"], "| 40 | 0 | 0 | 0 |"),
    "until": (["--short"], "| plain |"),
}
# What `bench` runs too.
IN_BENCH = ("checks", "large", "pixels", "probes")


def run(name: str, arguments: Sequence[str]) -> None:
    """Run a program in this process, which has imported torch and diffusers."""
    with mock.patch.object(sys, "argv", [name, *arguments]):
        import_module(f"tools.benchmarks.{name}").main()


def test_every_program_is_here() -> None:
    files = (ROOT / "tools/benchmarks").glob("*.py")
    assert {file.stem for file in files if "__main__" in file.read_text("utf-8")} == set(PROGRAMS)


@pytest.mark.parametrize(
    "name",
    [
        *("audit", "audits_simulated", "draft_ranks", "load", "marks", "one_level", "release", "suite_times"),
        "timesteps",
        *("gpu_assert", "gpu_deterministic", "gpu_neighbour", "gpu_peak", "gpu_placement"),
        *(pytest.param(name, marks=pytest.mark.long) for name in ("resume", "start")),
    ],
)
def test_it_runs_to_its_end(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, last = PROGRAMS[name]
    run(name, arguments)
    assert last in capsys.readouterr().out


def test_the_ceiling_of_a_table_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": "a red ball", "seed": seed, **SMALLEST["wan"]} for seed in range(2)]
    table = write_table(tmp_path / "t.parquet", rows)
    arguments, last = PROGRAMS["ceiling"]
    run("ceiling", [str(table), str(tiny("wan")), *arguments])
    assert last in capsys.readouterr().out


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["bench", *IN_BENCH], marks=pytest.mark.long),
        pytest.param(["ledger"], marks=pytest.mark.long),
        # What it compares is in tests/models/test_plan.py.
        pytest.param(["prediction"], marks=pytest.mark.long),
        ["training"],
        ["under_fire"],
        ["until"],
    ],
    ids=lambda names: names[0],
)
def test_one_that_starts_others_runs_to_its_end(names: Sequence[str]) -> None:
    arguments, _ = PROGRAMS[names[0]]
    process = start("-m", f"tools.benchmarks.{names[0]}", *arguments, stderr=subprocess.PIPE)
    printed, told = process.communicate()
    assert process.returncode == 0, told
    assert [name for name in names if PROGRAMS[name][1] not in printed] == []


@pytest.mark.long
def test_the_gallery_of_a_real_job_is_measured(tmp_path: Path) -> None:
    chromium()
    arguments, last = PROGRAMS["gallery"]
    process = start("-m", "tools.benchmarks.gallery", str(tmp_path), "--shots", str(tmp_path), *arguments)
    printed, _ = process.communicate()
    assert process.returncode == 0
    assert "32 records, 4 failed" in printed and f"0 {last}" in printed
    assert {shot.stem for shot in tmp_path.glob("*.webp")} == {*SHOTS}


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
@pytest.mark.parametrize(
    "name", ["gpu_bits", "gpu_peak", "gpu_squeezed", "load", "pixels", "real_rows", "real_width", "training"]
)
def test_without_a_gpu_it_says_what_is_missing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(name, ["--device", "cuda"])
    assert "--device cuda needs a GPU, and torch finds none" in capsys.readouterr().err
