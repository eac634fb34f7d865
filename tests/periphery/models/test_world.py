"""Two processes that train together do what one does in twice the forwards."""

from __future__ import annotations

import faulthandler
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, distributed as dist

from framefleet.plugins.train.learner import Learner
from framefleet.plugins.train.world import World
from tests.training_jobs import ToyTask, settings, toy_batches
from tests.warm.process import start

STRATEGIES = ("ddp", "fsdp")
STEPS = 3
LONGEST_S = 240.0  # then a process that hangs says where, and ends
OPTIONS = {"ema": 0.5, "learning_rate": 0.01}


def weights_of(learner: Learner) -> dict[str, Tensor]:
    """Without the statistics of batches, of which every process has its own."""
    return {name: value for name, value in learner.state() if not name.startswith("buffers/")}


def train_together(port: int, folder: Path, rank: int) -> None:
    """Train as one of two processes, once by each strategy; the first saves the weights."""
    faulthandler.dump_traceback_later(LONGEST_S, exit=True)
    dist.init_process_group("gloo", store=dist.TCPStore("127.0.0.1", port), rank=rank, world_size=2)
    world = World(rank=rank, size=2)
    for strategy in STRATEGIES:
        # DDP is gone when this returns. If it were the last to let the process group go, it would hold
        # Python's lock while it waits for threads that need it:
        # https://github.com/pytorch/pytorch/issues/56297
        weights = trained_weights(world, strategy)
        if world.is_first:
            safetensors.torch.save_file(weights, folder / strategy)
        world.wait()
    dist.destroy_process_group()


def trained_weights(world: World, strategy: str) -> dict[str, Tensor]:
    """Return the weights after three steps, the last of them after a restore."""
    task = ToyTask()
    learner = Learner(task, settings(**OPTIONS, strategy=strategy), world)
    losses = []
    for step in range(STEPS):
        if step == 2:
            state, task = list(learner.state()), ToyTask()
            learner = Learner(task, settings(**OPTIONS, strategy=strategy), world)
            learner.restore(state, {})
        mine = toy_batches(step, count=2)[world.rank : world.rank + 1]
        losses.append(learner.learn(step, mine).loss)
        with learner.result(), torch.no_grad():  # as samples are rendered: the next step must not see it
            task.loss(mine[0], torch.Generator())
    return weights_of(learner) | {"losses": torch.tensor(losses)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes came to, by strategy."""
    path = tmp_path_factory.mktemp("together")
    meeting = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    command = ["-m", "tests.periphery.models.test_world", str(meeting.port), str(path)]
    processes = [start(*command, str(rank), stderr=subprocess.PIPE) for rank in range(2)]
    ends = [process.communicate(timeout=LONGEST_S + 30) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    return path


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_are_one_with_twice_the_forwards(strategy: str, folder: Path) -> None:
    alone = Learner(ToyTask(), settings(**OPTIONS, accumulation=2), World())
    losses = [alone.learn(step, toy_batches(step, count=2)).loss for step in range(STEPS)]
    together = safetensors.torch.load_file(folder / strategy)
    assert together.pop("losses").tolist() == pytest.approx(losses, rel=1e-4)
    expected = weights_of(alone)
    assert together.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(together[name], value, atol=1e-5), name


if __name__ == "__main__":
    train_together(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
