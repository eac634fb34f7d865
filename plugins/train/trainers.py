"""Trains on the machines of a fleet, and reports each step until the weights are written.

Ray Train runs the processes, and restarts them from the last checkpoint when one dies. A single process on
this machine is this process itself: no cluster is started.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from queue import Empty
from typing import Any

import ray
import torch
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import framefleet
from framefleet.api.errors import FleetError, FramefleetError, JobError, count_text
from framefleet.cluster.fleet.connection import connect
from framefleet.cluster.fleet.settings import FleetSettings, worker_variables
from framefleet.pipeline.model.environment import source_fingerprint
from framefleet.plugins.train.reports import TrainingReport
from framefleet.plugins.train.run import Training, run_training
from framefleet.plugins.train.world import World

# From which a run recovers; a worker that dies more often has a lasting cause.
MAX_FAILURES = 5
# For each other, as while one renders samples. Ray Train itself finds out which process has died.
LONGEST_WAIT_S = 7 * 24 * 3600
# So often the driver looks whether the processes are still there.
_POLL_S = 0.5


@contextmanager
def start_trainers(settings: FleetSettings, *, threads: int, device: str) -> Iterator[Trainers]:
    """Join the cluster of the settings, or start one here where there are several workers.

    The processes of a training end with the context, and so does a cluster that was started here.
    """
    if ray.is_initialized():  # Ray Train's own processes would be shut down with ours
        raise FleetError("Ray is already in use in this process", "call ray.shutdown() first")
    if device == "cpu":
        settings = settings.model_copy(update={"gpus_per_worker": 0})
    with ExitStack() as stack:
        if settings.address is not None:
            stack.enter_context(connect(settings.address, num_cpus=settings.num_cpus))
        num_workers, gpus = _shares(settings)
        if settings.address is None and num_workers > 1:
            num_cpus = settings.model_copy(update={"workers": num_workers}).num_cpus
            stack.enter_context(connect(None, num_cpus=num_cpus))
        yield Trainers(settings=settings, threads=threads, num_workers=num_workers, gpus=gpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainers:
    settings: FleetSettings
    threads: int
    num_workers: int
    gpus: float  # of each

    def run(
        self, training: Training, tell: Callable[[TrainingReport], None], is_ending: Callable[[], bool]
    ) -> None:
        """Train to the end. Raises FramefleetError; what was finished stays, and `run` continues from there.

        tell: may end it by raising. is_ending: whether that will be with the next checkpoint, due at once.
        """
        device = training.model.device
        if not self.gpus and device.startswith("cuda"):
            problem = f"model.device is {device}, but workers of this training have no GPU"
            fix = "leave it out to train on the CPU, or raise fleet.gpus_per_worker"
            raise JobError(problem, fix)
        if not self.gpus and device == "auto":
            training = replace(training, model=replace(training.model, device="cpu"))
        if not ray.is_initialized():
            train_here(training, tell, is_ending)
            return
        # Outside this process: they are to live as long as it does.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        events, endings = (
            Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here}) for _ in range(2)
        )
        deadline = time.monotonic() + self.settings.ready_timeout_s
        is_ready = False
        # In a task: signals are for this process, and Ray Train would put its own handler in their way. In a
        # thread it might call a Ray that was shut down after an error, which ends the process without a word.
        fit = ray.remote(num_cpus=0, max_retries=0)(Trainers.fit).options(scheduling_strategy=here)
        fitting = fit.remote(self, training, events.put, endings)
        while not (ray.wait([fitting], timeout=0)[0] and events.empty()):
            try:
                if is_ending() and endings.empty():
                    endings.put("end")
                event = events.get(timeout=_POLL_S)
            except Empty:
                if not is_ready and time.monotonic() > deadline:
                    needs = {"GPU": self.gpus, "CPU": self.settings.worker_cpus()}
                    raise FleetError(
                        f"the workers were not ready after {self.settings.ready_timeout_s:.0f} s; each of "
                        f"{self.num_workers} needs {_in_words(needs)}, the cluster has "
                        f"{_in_words(ray.cluster_resources())}, free: {_in_words(ray.available_resources())}",
                        "lower fleet.workers, fleet.gpus_per_worker or fleet.cpus_per_worker, or raise "
                        "fleet.ready_timeout_s",
                    ) from None
                continue
            except RayError as error:
                raise FleetError(
                    f"the cluster was lost: {error}", "run the same command again when it is back"
                ) from error
            is_ready = True
            if isinstance(event, FramefleetError):
                raise event  # others would say the same, so none is started again
            tell(event)
        try:
            ray.get(fitting)
        except RayError as error:
            cause = getattr(error, "cause", None) or error
            raise FleetError(
                f"the workers failed more than {MAX_FAILURES} times; the last time: {cause}",
                "look for the cause on their machines (memory, driver), then run the same command again",
            ) from error

    def fit(self, training: Training, tell: Callable[[Any], None], endings: Queue) -> None:
        """Have Ray Train run the processes. endings: has something in it once they are to end."""
        logging.getLogger("ray.train").setLevel(logging.WARNING)
        needs = {"CPU": self.settings.worker_cpus(), "GPU": self.gpus}
        # Nothing of ours lies there; Ray's default is a folder in the user's home, and a mark of it stays.
        with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
            options: dict[str, Any] = {
                "storage_path": folder,
                "failure_config": FailureConfig(max_failures=MAX_FAILURES),
                "worker_runtime_env": {"env_vars": worker_variables(threads=self.threads)},
            }
            TorchTrainer(
                _train_on_ray,
                train_loop_config={
                    "training": training,
                    "tell": tell,
                    "endings": endings,
                    "build": _build(),
                },
                scaling_config=ScalingConfig(
                    num_workers=self.num_workers,
                    use_gpu=bool(self.gpus),
                    resources_per_worker={name: amount for name, amount in needs.items() if amount},
                ),
                run_config=RunConfig(**options),
                torch_config=TorchConfig(timeout_s=LONGEST_WAIT_S),
            ).fit()


def _train_on_ray(config: dict[str, Any]) -> None:
    """Be one of several processes."""
    context, tell = ray.train.get_context(), config["tell"]
    rank, size = context.get_world_rank(), context.get_world_size()
    try:
        if config["build"] != _build():
            raise FleetError(
                f"worker {rank} runs another build of framefleet than the driver",
                "install the same version on every machine of the cluster",
            )
        train_here(config["training"], tell, lambda: not config["endings"].empty(), rank=rank, size=size)
    except FramefleetError as error:
        tell(error)
        raise


def train_here(
    training: Training,
    tell: Callable[[Any], None],
    is_ending: Callable[[], bool] = lambda: False,
    *,
    rank: int = 0,
    size: int = 1,
) -> None:
    """Be one of the processes, or the only one."""
    if training.model.device != "auto":
        device = torch.device(training.model.device)
    elif torch.cuda.is_available():  # the one that Ray Train chose for this process
        device = torch.device("cuda", torch.cuda.current_device())
    else:
        device = torch.device("cpu")
    model = replace(training.model, device=str(device))
    world = World(rank=rank, size=size, device=device)
    run_training(replace(training, model=model), world, tell, is_ending)


def _in_words(resources: Mapping[str, float]) -> str:
    return " and ".join(count_text(resources.get(name, 0), name) for name in ("GPU", "CPU"))


def _build() -> tuple[str, str]:
    return framefleet.__version__, source_fingerprint()


def _shares(settings: FleetSettings) -> tuple[int, float]:
    """Return the number of workers, and of GPUs for each.

    auto is one for each GPU, or one where there is none: processes share no cores for nothing.
    """
    if settings.address is None:
        total = float(torch.cuda.device_count())
    else:
        total = ray.cluster_resources().get("GPU", 0.0)
    gpus = settings.gpus_per_worker
    if gpus == "auto":
        gpus = 1 if total else 0
    if settings.max_workers is not None:
        return settings.max_workers, gpus
    return max(1, int(total / gpus)) if gpus else 1, gpus
