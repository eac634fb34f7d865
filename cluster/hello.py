"""Who a worker is, said once when its model is loaded, and whether it may join."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection
from typing import TYPE_CHECKING

import framefleet
from framefleet.cluster.messages import Hello
from framefleet.pipeline.errors import FleetError
from framefleet.pipeline.model.environment import source_fingerprint

if TYPE_CHECKING:
    from framefleet.pipeline.model.model import Model


def hello_of(model: Model) -> Hello:
    """Return what this process says of itself."""
    from framefleet.pipeline.memory import room_bytes  # imports torch, which the driver needs not

    return Hello(
        version=framefleet.__version__,
        fingerprint=source_fingerprint(),
        model_digest=model.digest,
        environment=model.environment,
        node=socket.gethostname(),
        pid=os.getpid(),
        room=room_bytes(model.environment["device"]),
    )


def check_gpus(hello: Hello, given: Collection[object], device: str) -> None:
    """Raise FleetError for a worker that took the CPU though Ray gave it GPUs. device: as the job says.

    It would render other bits, and take hours.
    """
    if given and device == "auto" and hello.environment.get("device") == "cpu":
        raise FleetError(
            f"Ray gave the worker on {hello.node} a GPU, and torch {hello.environment['torch']} finds none",
            "run nvidia-smi there, and install a torch that is built for its CUDA; or set model.device: cpu",
        )


def check_hello(worker: str, hello: Hello) -> None:
    """Raise FleetError for a worker that runs another build of framefleet than this process."""
    if (hello.version, hello.fingerprint) != (framefleet.__version__, source_fingerprint()):
        raise FleetError(
            f"{worker} on {hello.node} runs framefleet {hello.version}, another build than this one "
            f"({framefleet.__version__})",
            "install the same version on every machine of the cluster",
        )
