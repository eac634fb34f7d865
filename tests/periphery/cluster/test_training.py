"""`framefleet train` as a shell runs it: killed, interrupted, and on several workers."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import ray
import safetensors.torch
import torch
import yaml

from framefleet import FleetError, Store, train
from framefleet.cluster.fleet.ray_start import end_ray
from framefleet.plugins.train.reports import read_losses
from tests.jobs import finish, wait_until, worker_pids
from tests.servers import S3Server
from tests.training_jobs import equal, start_training, trained_weights, training_job, write_clips

LONG = {"steps": 40, "checkpoint_every": 5}
DISTURBED = [  # after how many steps, how, and with what the command ends
    (5, signal.SIGKILL, -9),
    (15, signal.SIGTERM, 143),
]
TOGETHER = {"steps": 20, "batch_size": 1, "checkpoint_every": 5, "learning_rate": 1e-4, "max_grad_norm": None}
SAMPLE = {"prompt": "square 1", "seed": 3, "num_inference_steps": 2, "guidance_scale": 1.0}
TWO_WORKERS = "fleet={workers: 2, gpus_per_worker: 0}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training")
    write_clips(path)
    return path


@pytest.mark.timeout(900)
def test_killed_and_interrupted_at_random_moments_it_comes_to_the_same_bits(folder: Path) -> None:
    """And where it was interrupted, it says how to go on."""
    train(training_job(folder, "undisturbed", **LONG))
    undisturbed = trained_weights(folder / "undisturbed")
    job, output, moments = training_job(folder, "killed", **LONG), folder / "killed", random.Random(5)
    for steps, number, exit_code in DISTURBED:
        before = max(whole_checkpoints(output), default=0)  # a slow machine's kill comes late
        process = start_training(job)
        wait_for_steps(output, max(steps, before + 1), process)
        time.sleep(moments.uniform(0, 0.3))
        process.send_signal(number)
        printed = finish(process, exits=exit_code, timeout_s=60)
        assert ("to continue: framefleet train" in printed) == (number != signal.SIGKILL)
    finish(start_training(job))
    assert equal(trained_weights(output), undisturbed)


def test_on_s3_it_goes_on_to_the_same_bits(folder: Path, s3_server: S3Server) -> None:
    train(training_job(folder, "nearby", steps=6))
    values = yaml.safe_load(training_job(folder, "s3", steps=4).read_text())
    values |= {"output": f"{s3_server.url}/training", "storage_options": s3_server.storage_options}
    train(values)
    values["train"]["steps"] = 6
    train(values)
    store = Store(values["output"], s3_server.storage_options)
    assert [step.step for step in read_losses(store)] == [*range(6)]
    assert s3_server.storage_options["secret"].encode() not in store.read("train.json")
    weights = safetensors.torch.load(store.read("model/transformer/diffusion_pytorch_model.safetensors"))
    assert equal(weights, trained_weights(folder / "nearby"))


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    train(training_job(folder, "alone", **TOGETHER, accumulation=2))
    return folder / "alone"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.long)])
def test_two_workers_do_what_one_does_in_two_forwards(strategy: str, folder: Path, alone: Path) -> None:
    """To the rounding of fp32, and also when a worker is killed on the way, and then all are to end."""
    job = training_job(folder, strategy, **TOGETHER, strategy=strategy, samples=[SAMPLE])
    process = start_training(job, TWO_WORKERS)
    if strategy == "ddp":
        wait_for_steps(folder / strategy, 5, process)
        os.kill(worker_pids(process.pid, "RayTrainWorker")[0], signal.SIGKILL)
        wait_for_steps(folder / strategy, 10, process)
        process.terminate()
        printed, _ = process.communicate(timeout=60)
        saved = re.search(r"asked to end: (\d+) steps saved", printed)
        assert process.returncode == 143 and saved, printed
        assert int(saved[1]) <= max(whole_checkpoints(folder / strategy))  # it may have saved one more since
        process = start_training(job, TWO_WORKERS)
    finish(process)
    theirs, ours = (read_losses(Store(str(output))) for output in (alone, folder / strategy))
    assert [step.loss for step in ours] == pytest.approx([step.loss for step in theirs], rel=1e-3)
    weights = trained_weights(folder / strategy)
    for name, value in trained_weights(alone).items():
        assert torch.allclose(weights[name], value, atol=1e-3), name
    assert (folder / strategy / "samples/20/01.mp4").exists()


def test_a_ray_that_is_in_use_is_left_alone(folder: Path, ray_cluster: str) -> None:
    ray.init(ray_cluster, log_to_driver=False)
    try:
        with pytest.raises(FleetError, match=r"Ray is already in use(.|\n)*ray.shutdown"):
            train(training_job(folder, "in_use"))
        assert ray.is_initialized()
    finally:
        end_ray()


def whole_checkpoints(output: Path) -> list[int]:
    """Return after how many steps there is a checkpoint."""
    return [int(path.parent.name) for path in output.glob("checkpoints/*/checkpoint.json")]


def wait_for_steps(output: Path, steps: int, process: subprocess.Popen[str]) -> None:
    """Wait until a checkpoint of so many steps, or more, is whole."""
    wait_until(lambda: max(whole_checkpoints(output), default=0) >= steps, process)
