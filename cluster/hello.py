"""Who a worker is, said once when its model is loaded, and whether it may join."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import framefleet
from framefleet.cluster.messages import Hello
from framefleet.pipeline.errors import FleetError
from framefleet.pipeline.model.environment import source_fingerprint

if TYPE_CHECKING:
    from framefleet.pipeline.model.model import Model


def hello_of(model: Model) -> Hello:
    """Return what this process says of itself."""
    return Hello(
        version=framefleet.__version__,
        fingerprint=source_fingerprint(),
        model_digest=model.digest,
        environment=model.environment,
        node=socket.gethostname(),
        pid=os.getpid(),
    )


def check_hello(worker: str, hello: Hello) -> None:
    """Raise FleetError for a worker that runs another build of framefleet than this process."""
    if (hello.version, hello.fingerprint) != (framefleet.__version__, source_fingerprint()):
        raise FleetError(
            f"{worker} on {hello.node} runs framefleet {hello.version}, another build than this one "
            f"({framefleet.__version__})",
            "install the same version on every machine of the cluster",
        )
