"""Starts our own Ray, without the parts that only people look at, and tries again if that fails."""

from __future__ import annotations

import logging
import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from ray.exceptions import RpcError

from framefleet.pipeline.guards.sandbox import ending

log = logging.getLogger(__name__)

_ending: list[Any] = []  # the processes of the Ray that `end_ray` ended last
_services: Any = ray._private.services
_node: Any = ray._private.node
# For Ray's raylet to be ready, in each try. The first is Ray's own limit.
PATIENCE_S = (30.0, 60.0, 120.0)
RETRY_AFTER_S = 2.0  # then twice as long
_VITAL = ("gcs_server", "raylet")  # of its processes
# The raylet insists on an agent (and ends if that ends), and on its ports. This agent ends with the raylet.
# With a shell around it (`cat` without `exec`), an ending raylet waits for it, until Ray kills the raylet.
_PORTS = ("metrics-agent-port", "metrics_export_port", "dashboard_agent_listen_port")
_NO_AGENT = ("--dashboard_agent_command=sh -c 'exec cat'", *(f"--{port}=1" for port in _PORTS))


def start_ray(options: dict[str, Any]) -> None:
    """Call `ray.init` with `options`, up to three times. Raises what the last try raised."""
    logs = Path(options["_temp_dir"], "session_latest/logs")
    for number, patience_s in enumerate(PATIENCE_S, start=1):
        is_last = number == len(PATIENCE_S)
        try:
            # In the last try, as Ray does it itself: another version may need what we leave out.
            with _watched(logs, patience_s, is_lean=not is_last):
                ray.init(address="local", **options)
            return
        except Exception as error:  # for a node that is not up in time, Ray raises exactly this class
            if is_last:
                raise
            log.warning("Ray did not start; trying again: %s", error)
        time.sleep(RETRY_AFTER_S * number)


def end_ray(*, wait_for_processes: bool = False) -> None:
    """Call `ray.shutdown`, while nothing else can reach its C++ part.

    A thread that drops an object of Ray's just then would end this process without a message, and any thread
    that collects garbage may do so (https://github.com/ray-project/ray/pull/19115).
    """
    _ending[:] = _own_processes()
    worker: Any = ray._private.worker.global_worker
    if core := getattr(worker, "core_worker", None):
        ray._private.worker.disconnect()  # needs it, and does nothing when `ray.shutdown` calls it again
        worker.core_worker = SimpleNamespace(shutdown_driver=core.shutdown_driver)
    ray.shutdown(wait_for_processes=wait_for_processes)
    kill_ray()


def kill_ray() -> None:
    """Kill what is left of our own Ray: frozen processes would not notice that their parents end."""
    for process in _ending or _own_processes():
        with suppress(_node.psutil.NoSuchProcess):
            process.kill()


def _own_processes() -> list[Any]:
    """Return the processes that this one has started for Ray, with their descendants."""
    node: Any = ray._private.worker._global_node
    processes = []
    for started in chain.from_iterable(node.all_processes.values() if node else ()):
        with suppress(_node.psutil.NoSuchProcess):
            root = _node.psutil.Process(started.process.pid)
            processes += [*root.children(recursive=True), root]
    return processes


def _free_port() -> int:
    """Return a port without a listener, below those that Linux gives to processes that ask for any port.

    The agent listens there only seconds later, and processes ask for ports all the time.
    """
    for _ in range(100):
        # Above those of Ray's workers, below those of Kubernetes' services.
        port = random.SystemRandom().randrange(20_000, 30_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise ConnectionError("no port is free on 127.0.0.1")


@contextmanager
def _watched(logs: Path, patience_s: float, *, is_lean: bool) -> Iterator[None]:
    """Make `ray.init` start and wait for what we want, which it has no settings for. End what fails.

    Ray's own waits take 30 s each, even for a process that is dead.
    """
    start, get_node = _services.start_ray_process, _services.get_node
    get_port = _node.wait_for_persisted_port
    processes: dict[str, subprocess.Popen[bytes]] = {}

    def start_process(command: list[str], name: str, *more: Any, **settings: Any) -> Any:
        if name == "raylet":
            # How long the raylet waits for its own processes before it ends.
            variables = {"RAY_agent_register_timeout_ms": f"{patience_s * 1000:.0f}"}
            if is_lean:
                # It waits as long for an agent whose port it knows, and 15 s for a file that names the port.
                port = _free_port()
                command = [word.replace("-agent-port=0", f"-agent-port={port}") for word in command]
                command += [*_NO_AGENT, f"--runtime_env_agent_port={port}"]
                variables["RAY_enable_metrics_collection"] = "0"
            settings["env_updates"] = variables | (settings.get("env_updates") or {})
        process = start(command, name, *more, **settings)
        processes[name] = process.process
        return process

    def wait(name: str, is_ready: Callable[[], bool]) -> None:
        ends_at = time.monotonic() + patience_s
        while not is_ready():
            for started, process in processes.items():
                if started in _VITAL and (code := process.poll()) is not None:
                    text = (logs / f"{started}.err").read_text(errors="replace")
                    output = text.partition("*** StackTrace")[0].splitlines()[-6:]
                    raise ChildProcessError("\n".join([f"its {started} ended with {ending(code)}", *output]))
            if time.monotonic() > ends_at:
                raise TimeoutError(f"its {name} was not ready after {patience_s:.0f} s")
            time.sleep(0.1)

    def find_node(address: str, node_id: str) -> Any:
        client = _services.GcsClient(address=address)

        def is_known() -> bool:
            with suppress(RpcError):  # busy
                return ray.NodeID.from_hex(node_id) in client.get_all_node_info(timeout=1.0)
            return False

        wait("raylet", is_known)
        return get_node(address, node_id)

    def find_port(folder: str, node_id: str, name: str, **_: Any) -> Any:
        wait("gcs_server", Path(folder, f"{name}_{node_id}").exists)
        return get_port(folder, node_id, name)

    changes: list[Any] = [
        (_services, "start_ray_process", start_process),
        (_services, "get_node", find_node),
        (_node, "wait_for_persisted_port", find_port),
    ]
    if is_lean:
        changes.append((_services, "start_api_server", lambda *_, **__: ("", None)))
        for name in ("start_monitor", "start_log_monitor"):
            changes.append((_node.Node, name, lambda _: None))
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(replaced(*change))
        try:
            yield
        except BaseException:
            end_ray()
            for process in processes.values():  # what is below the raylet ends with it
                process.kill()
                process.wait()
            raise


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Replace a value in a module of Ray that has no setting for it."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)
