"""`framefleet train` as a shell runs it: killed, interrupted, and on several workers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from framefleet.jobs.train import train
from framefleet.pipeline.outputs.store import Store
from framefleet.pipeline.training.results.losses import read_losses
from tests.jobs import finish, worker_pids
from tests.training_jobs import start_training, trained_weights, training_job, write_clips

LONG = {"steps": 40, "checkpoint_every": 5}
TOGETHER = {"steps": 30, "batch_size": 1, "checkpoint_every": 5, "learning_rate": 1e-4, "max_grad_norm": None}
TWO_WORKERS = "fleet={workers: 2, gpus_per_worker: 0}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training")
    write_clips(path)
    return path


@pytest.mark.timeout(900)
def test_killed_at_three_random_moments_it_comes_to_the_same_bits(folder: Path) -> None:
    """And interrupted once, when it says how to go on."""
    train(training_job(folder, "undisturbed", **LONG))
    undisturbed = trained_weights(folder / "undisturbed")
    job, output, moments = training_job(folder, "killed", **LONG), folder / "killed", random.Random(5)
    for steps in (5, 15, 25):
        process = start_training(job)
        wait_for_steps(output, steps, process)
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    process = start_training(job)
    wait_for_steps(output, 35, process)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert "to go on: framefleet train" in printed
    finish(start_training(job))
    weights = trained_weights(output)
    assert weights.keys() == undisturbed.keys()
    assert all(torch.equal(weights[name], value) for name, value in undisturbed.items())


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    train(training_job(folder, "alone", **TOGETHER, accumulation=2))
    return folder / "alone"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_workers_do_what_one_does_in_two_forwards(strategy: str, folder: Path, alone: Path) -> None:
    """To the rounding of fp32, and also when one of the workers is killed on the way."""
    process = start_training(training_job(folder, strategy, **TOGETHER, strategy=strategy), TWO_WORKERS)
    if strategy == "ddp":
        wait_for_steps(folder / strategy, 5, process)
        os.kill(worker_pids(process.pid, "RayTrainWorker")[0], signal.SIGKILL)
    finish(process)
    theirs, ours = (read_losses(Store(str(output))) for output in (alone, folder / strategy))
    assert [step.loss for step in ours] == pytest.approx([step.loss for step in theirs], rel=1e-3)
    weights = trained_weights(folder / strategy)
    for name, value in trained_weights(alone).items():
        assert torch.allclose(weights[name], value, atol=1e-3), name


def wait_for_steps(output: Path, steps: int, process: subprocess.Popen[str]) -> None:
    """Wait until a checkpoint of so many steps, or more, is whole."""
    deadline = time.monotonic() + 240
    while not any(int(path.parent.name) >= steps for path in output.glob("checkpoints/*/checkpoint.json")):
        assert time.monotonic() < deadline, f"no checkpoint after step {steps} in time"
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
