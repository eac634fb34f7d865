"""`framefleet train` as a shell runs it: killed, interrupted, and on several workers."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from framefleet.pipeline.outputs.store import Store
from framefleet.pipeline.training.losses import read_losses
from tests.jobs import finish, worker_pids
from tests.training_jobs import start_training, trained_weights, training_job, write_clips

STEPS = 40
LONG = {"steps": STEPS, "checkpoint_every": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training")
    write_clips(path)
    return path


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, Tensor]:
    finish(start_training(training_job(folder, "undisturbed", **LONG)))
    return trained_weights(folder / "undisturbed")


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def wait_for_steps(output: Path, steps: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while not any((output / "checkpoints").glob(f"{steps}/checkpoint.json")):
        assert time.monotonic() < deadline, f"no checkpoint after step {steps} in time"
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_killed_at_three_random_moments_it_comes_to_the_same_bits(
    folder: Path, undisturbed: dict[str, Tensor]
) -> None:
    job, moments = training_job(folder, "killed", **LONG), random.Random(5)
    for steps in (5, 15, 30):
        process = start_training(job)
        wait_for_steps(folder / "killed", steps, process)
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    finish(start_training(job))
    assert equal(trained_weights(folder / "killed"), undisturbed)
    assert "nothing to do" in finish(start_training(job))


def test_interrupted_it_says_how_to_go_on(folder: Path) -> None:
    process = start_training(training_job(folder, "interrupted", **LONG))
    wait_for_steps(folder / "interrupted", 5, process)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "to go on: framefleet train" in printed


@pytest.mark.timeout(600)
def test_two_workers_do_what_one_does_in_two_forwards(folder: Path) -> None:
    """By ddp and by fsdp, to the rounding of fp32, which Adam makes larger."""
    settings = {
        "steps": 4,
        "batch_size": 1,
        "checkpoint_every": 2,
        "learning_rate": 1e-4,
        "max_grad_norm": None,
    }
    finish(start_training(training_job(folder, "one", **settings, accumulation=2)))
    alone = read_losses(Store(str(folder / "one")))
    for strategy in ("ddp", "fsdp"):
        process = start_training(
            training_job(folder, strategy, **settings, strategy=strategy),
            "fleet={workers: 2, gpus_per_worker: 0}",
        )
        if strategy == "ddp":
            wait_for_steps(folder / strategy, 2, process)
            process.send_signal(signal.SIGCONT)
        finish(process)
        losses = read_losses(Store(str(folder / strategy)))
        assert [step.loss for step in losses] == pytest.approx([step.loss for step in alone], rel=1e-3)
        weights = trained_weights(folder / strategy)
        for name, value in trained_weights(folder / "one").items():
            assert torch.allclose(weights[name], value, atol=1e-4), name
    assert worker_pids
