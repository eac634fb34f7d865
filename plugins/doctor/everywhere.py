"""Call functions on every machine of a Ray cluster.

This takes no cores or GPUs of the cluster, so it also works while a job runs.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.util import get_node_ip_address
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from framefleet.api.errors import FleetError
from framefleet.cluster.fleet.connection import Head, connect
from framefleet.cluster.fleet.machines import Machine
from framefleet.cluster.fleet.settings import worker_variables

_CONNECT_S = 3.0
_AT_ONCE = 64  # connections of a machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """How a machine reached the others. unreachable: names of machines. offset_s: of its clock, at least."""

    unreachable: tuple[str, ...]
    offset_s: float


@contextmanager
def everywhere(address: str) -> Iterator[list[Machine]]:
    """Join a cluster until the context ends; yield its machines. Raises FleetError."""
    with connect(address, num_cpus=0):
        yield [machine for machine in Head().machines() if machine.is_alive]


def run_on(
    machines: Sequence[Machine], function: Callable[..., Any], *arguments: Any, timeout_s: float
) -> dict[str, Any]:
    """Call a function on all machines at once; return results by machine, or FleetErrors for failures."""
    remote = ray.remote(function)
    calls = {
        machine.name: remote.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(machine.node_id, soft=False),
            runtime_env={"env_vars": worker_variables(threads=1)},
        ).remote(*arguments)
        for machine in machines
    }
    done, _ = ray.wait(list(calls.values()), num_returns=len(calls), timeout=timeout_s)
    return {name: _answer(ref, name, timeout_s, is_done=ref in done) for name, ref in calls.items()}


def meet(machines: Sequence[Machine], *, timeout_s: float) -> dict[str, Any]:
    """Let each machine connect to Ray on all others, and to a free port of this process."""
    # Nobody accepts: all connections wait in the backlog.
    with socket.create_server((get_node_ip_address(), 0), backlog=2 * len(machines) + 8) as here:
        places = {machine.name: (machine.address, machine.port) for machine in machines}
        places["the driver's machine, a free port"] = here.getsockname()[:2]
        sent = time.time()
        answers = run_on(machines, _connect_to, places, timeout_s=timeout_s)
        received = time.time()
    for name, answer in answers.items():
        if not isinstance(answer, FleetError):
            began, unreachable, ended = answer
            # It started after we sent the request, and ended before we received the answer. If its times
            # contradict this, the clocks differ.
            offset_s = min(began - sent, 0.0) + max(ended - received, 0.0)
            answers[name] = Met(unreachable=unreachable, offset_s=offset_s)
    return answers


def _answer(ref: Any, name: str, timeout_s: float, *, is_done: bool) -> Any:
    if not is_done:
        return FleetError(f"{name} has not answered after {timeout_s:.0f} s", "it may be overloaded")
    try:
        return ray.get(ref)
    except Exception as error:  # from Ray, or from unpickling if another framefleet is installed there
        last = str(error).strip().rpartition("\n")[2]
        return FleetError(
            f"{name} cannot run a check: {last}", "install the same version of framefleet there"
        )


def _connect_to(places: Mapping[str, tuple[str, int]]) -> tuple[float, tuple[str, ...], float]:
    """Runs on a machine: return start and end, by its own clock, and the places that it did not reach."""

    def problem(name: str, address: str, port: int) -> str:
        try:
            socket.create_connection((address, port), timeout=_CONNECT_S).close()
        except OSError as error:
            return f"{name} at {address}:{port} ({error})"
        return ""

    began = time.time()
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        answers = [*threads.map(lambda name: problem(name, *places[name]), places)]
    return began, tuple(filter(None, answers)), time.time()
