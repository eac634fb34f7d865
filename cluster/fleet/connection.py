"""In: the address of a Ray cluster, or none. Out: this process connected to it, or to one of its own.

If the program is connected already, its cluster is used, and continues when the fleet has ended.

A cluster of our own lives as long as the connection, and nobody else can use it: it listens on loopback,
every call needs a token of this process, and only its owner can enter its folder.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import ray
from ray._private.runtime_env.py_modules import upload_py_modules_if_needed
from ray.core.generated import autoscaler_pb2
from ray.exceptions import AuthenticationError, RpcError
from ray.job_config import JobConfig
from ray.util.metrics import Counter, Gauge

from framefleet.cluster.fleet.losses import ANSI
from framefleet.cluster.fleet.machines import Machine, Room
from framefleet.cluster.fleet.ray_folder import check_parent, make_socket_folder, warn_of_open_folder
from framefleet.cluster.fleet.ray_start import end_ray, replaced, start_ray
from framefleet.pipeline.errors import FleetError, UserError
from framefleet.pipeline.guards.own_python import python
from framefleet.pipeline.metrics import METRICS

log = logging.getLogger(__name__)

# Only records of 1 KB pass through it; Ray's default would take a third of the memory.
OBJECT_STORE_BYTES = 128 * 2**20
CONNECT_S = 5.0
RAY_ANSWERS_S = 10.0  # of a process of Ray that is busy
_GRPC_BEGINS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # and no settings
JOIN_S = 30.0  # importing Ray and joining take three on an idle machine
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
NO_IDLE_WORKERS = "RAY_prestart_worker_first_driver"
# How long Ray waits for the head before it ends this process, whatever that is doing: a minute, unless set.
# We have our own limit (fleet.silence_s), at which a job ends in good order.
_HEAD_LIMIT = "RAY_gcs_rpc_server_reconnect_timeout_s"
_START_AGAIN = "run the same command again once this machine has less to do; Ray's logs may say more"
# Not with `ray.nodes()`, which waits without a limit, does not report machines that are about to go (spot
# instances, or sent SIGTERM), and ends this process if another cluster answers in the head's place.
# Ray Serve does the same:
# https://github.com/ray-project/ray/blob/master/python/ray/serve/_private/cluster_node_info_cache.py
_ALIVE = 0  # GcsNodeInfo.ALIVE
_LIMIT_S = 5.0


class Head:
    """The head of a cluster. address: of one to join; None for the one that this process has joined."""

    def __init__(self, address: str | None = None) -> None:
        address = address or ray.get_runtime_context().gcs_address
        self._client = ray._raylet.GcsClient(address=address)  # type: ignore[attr-defined]  # compiled

    def machines(self) -> list[Machine]:
        """Return all machines, including those that died."""
        draining = self._client.get_draining_nodes(timeout=_LIMIT_S)
        return [
            Machine(
                node_id=node_id.hex(),
                host=node.node_manager_hostname,
                address=node.node_manager_address,
                port=node.node_manager_port,
                cpus=node.resources_total.get("CPU", 0.0),
                gpus=node.resources_total.get("GPU", 0.0),
                is_alive=node.state == _ALIVE,
                is_draining=node_id.hex() in draining,
            )
            for node_id, node in self._client.get_all_node_info(timeout=_LIMIT_S).items()
        ]

    def room(self) -> Room:
        """Return which resources of the cluster are free, and which processes wait for some."""
        reply = cast("Any", autoscaler_pb2).GetClusterResourceStateReply()
        reply.ParseFromString(self._client.get_cluster_resource_state(timeout_s=_LIMIT_S))
        state = reply.cluster_resource_state
        waiting = (pending.request.resources_bundle for pending in state.pending_resource_requests)
        return Room(
            free=tuple(
                Machine(
                    node_id=node.node_id.hex(),
                    host=node.node_ip_address,
                    address=node.node_ip_address,
                    cpus=node.available_resources.get("CPU", 0.0),
                    gpus=node.available_resources.get("GPU", 0.0),
                )
                for node in state.node_states
            ),
            awaited=frozenset((bundle.get("CPU", 0.0), bundle.get("GPU", 0.0)) for bundle in waiting),
        )


class RayMetrics:
    """Adds figures of this process to the metrics that a Ray cluster exports. output: a label of all."""

    def __init__(self, output: str) -> None:
        self._metrics: dict[str, Counter | Gauge] = {}
        self.begin(output)

    def begin(self, output: str) -> None:
        """Publish the figures of another driver."""
        self._output = output
        self._told: dict[str, float] = {}  # of counters, which take what is new

    def publish(self, figures: Mapping[str, float]) -> None:
        for key, figure in figures.items():
            name, _, value = key.partition("/")
            metric = METRICS[name]
            tags = {"output": self._output} | ({metric.label: value} if metric.label else {})
            if name not in self._metrics:
                kind, suffix = (Counter, "_total") if metric.is_total else (Gauge, "")
                self._metrics[name] = kind(f"framefleet_{name}{suffix}", metric.help, tuple(tags))
            exported = self._metrics[name]
            if isinstance(exported, Gauge):
                exported.set(figure, tags)
            elif (new := figure - self._told.get(key, 0.0)) > 0:
                exported.inc(new, tags)
                self._told[key] = figure


class _NoFolders(JobConfig):
    """Keeps Ray from putting the driver's folders first on its workers' import path.

    Otherwise a stranger's modules next to a table would run in every worker. Ray has no option for this, but
    leaves the folders out if the job has a `working_dir` (`ray/_private/worker.py:connect`).
    """

    def _runtime_env_has_working_dir(self) -> bool:
        return True


@dataclass(slots=True)
class Connection:
    keep_logs: bool = False  # of a cluster of our own, when it ends: they may explain an error
    is_lost: bool = False
    # Of every actor, if the program's own connection cannot bring modules to them.
    runtime_env: dict[str, Any] = field(default_factory=dict)


@contextmanager
def connect(address: str | None, *, num_cpus: int, modules: Sequence[str] = ()) -> Iterator[Connection]:
    """Join the cluster at `address`, or start one here that gives `num_cpus`; bring `modules` to its workers.

    At the end of the context the connection ends, and with it a cluster that was started here. Its logs are
    deleted, unless a FleetError ends it. Raises FleetError.
    """
    if ray.is_initialized():
        joined = _connection_of_program(address, modules)
        warn_of_open_folder()
        yield joined
        return
    _check_token()
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "job_config": _NoFolders(),
        "runtime_env": {"py_modules": list(modules)} if modules else None,
    }
    connection = Connection()
    with ExitStack() as stack:
        stack.enter_context(_environment({_HEAD_LIMIT: os.environ.get(_HEAD_LIMIT, "3600")}))
        if address is None:
            folder = stack.enter_context(_own_folder(connection))
            stack.enter_context(_environment(_settings_of_our_own(folder)))
            options |= {
                "num_cpus": num_cpus,
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
                "_temp_dir": str(folder / "ray"),  # which Ray opens to everybody: below the one it cannot
            }
        else:
            address = _reachable(address)
        stack.enter_context(replaced(ray._private.worker, "print_to_stdstream", _log_first_line))
        stack.callback(end_ray, wait_for_processes=True)
        try:
            _start(address, options)
            warn_of_open_folder()
            yield connection
        except FleetError:
            connection.keep_logs = True
            raise


def _log_first_line(batch: Mapping[str, Any], ignore_prefix: bool) -> None:
    """Log what Ray reports, such as lost machines, instead of all of it being printed on stdout."""
    for text in batch["lines"]:
        log.warning("Ray: %s", ANSI.sub("", text).strip().partition("\n")[0])


def _connection_of_program(address: str | None, modules: Sequence[str]) -> Connection:
    """Return the connection that this program has to its own cluster, with our modules in its store.

    Ray only brings local modules to workers if `ray.init` names them. For actors, it wants the URIs that it
    then gives them (https://github.com/ray-project/ray/pull/52704).
    """
    if ray.util.client.ray.is_connected():
        raise FleetError(
            "this program uses Ray through a client (ray://)",
            "run it on a machine of the cluster, or submit it there as a Ray job",
        )
    context = ray.get_runtime_context()
    if address not in (None, "auto", context.gcs_address):
        raise FleetError(
            f"this program uses the Ray cluster at {context.gcs_address}, and the job names {address}",
            "leave fleet.address out to render on the program's own cluster",
        )
    theirs = list(context.runtime_env.get("py_modules") or [])
    if not modules:
        return Connection()
    with tempfile.TemporaryDirectory(prefix="framefleet-") as scratch:
        uploaded = upload_py_modules_if_needed(
            {"py_modules": list(modules)}, include_gitignore=True, scratch_dir=scratch, logger=log
        )
    return Connection(runtime_env={"py_modules": [*theirs, *uploaded["py_modules"]]})


def _start(address: str | None, options: dict[str, Any]) -> None:
    constants = ray._private.ray_constants
    try:
        with (
            _own_signals(),
            # Else Ray's job table, which all users of a cluster see, has the command line with its secrets.
            replaced(ray._private.utils, "get_entrypoint_name", lambda: "framefleet"),
            # Whether other machines may join one of our own. If not, all of Ray listens on loopback alone.
            replaced(constants, "ENABLE_RAY_CLUSTER", address is not None and constants.ENABLE_RAY_CLUSTER),
        ):
            if address is None:
                start_ray(options)
            else:
                ray.init(address=address, **options)
    except Exception as error:  # for a node that is not up in time, Ray raises exactly this class
        if address is not None and _wants_token(error):
            raise needs_token(f"the Ray cluster at {address}") from error
        if address is None:
            check_parent()  # raises a clearer error if its folder is full
            raise FleetError(f"cannot start Ray on this machine: {error}", _START_AGAIN) from error
        raise FleetError(f"cannot join Ray at {address}: {error}", "check this address") from error


def needs_token(where: str) -> FleetError:
    return _to_correct(
        f"{where} requires a token, but this process has none, or another",
        "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH, the file with the cluster's token",
    )


def _check_token() -> None:
    """Raise FleetError for a file of a token that Ray cannot read, as it would abort this process."""
    place = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not place or os.environ.get("RAY_AUTH_TOKEN"):
        return
    try:
        why = "" if Path(place).read_bytes().strip() else "which is empty"
    except OSError as error:
        why = f"which cannot be read: {error.strerror}"
    if why:
        problem = f"RAY_AUTH_TOKEN_PATH names {place}, {why}"
        raise _to_correct(problem, "name the file with the cluster's token")


def _to_correct(problem: str, fix: str) -> FleetError:
    """Return an error that needs a correction: the same command would end with it again."""
    error = FleetError(problem, fix)
    error.exit_code = UserError.exit_code
    return error


def _wants_token(error: BaseException | None) -> bool:
    """Return whether an error, or its cause, is about authentication: Ray hides it in a ConnectionError."""
    while error is not None:
        if isinstance(error, AuthenticationError) or "InvalidAuthToken" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def _own_folder(connection: Connection) -> Iterator[Path]:
    """Yield a new folder that only its owner can enter. It is deleted at the end, or keeps the logs."""
    folder = make_socket_folder()
    try:
        yield folder
    finally:
        (folder / "token").unlink(missing_ok=True)
        if connection.keep_logs:
            log.warning("Ray's logs of this run are kept in %s", folder / "ray/session_latest/logs")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _settings_of_our_own(folder: Path) -> dict[str, str | None]:
    """Return the environment in which Ray starts a cluster of our own; None removes a variable."""
    settings: dict[str, str | None] = {
        # Our workers have their own environment, so they cannot use idle ones, which take seconds to start.
        NO_IDLE_WORKERS: os.environ.get(NO_IDLE_WORKERS, "0"),
        "RAY_USAGE_STATS_ENABLED": os.environ.get("RAY_USAGE_STATS_ENABLED", "0"),  # sent to Ray's makers
        "RAY_AUTH_MODE": None,  # unset, Ray turns tokens on for what it starts
    }
    if not any(os.environ.get(name) for name in TOKEN_VARIABLES):
        file = folder / "token"
        file.touch(mode=0o600)
        file.write_text(_token(), encoding="ascii")
        settings["RAY_AUTH_TOKEN_PATH"] = str(file)
    return settings


@cache
def _token() -> str:
    """Return the token of all clusters that this process starts: Ray reads it only once."""
    return secrets.token_hex(32)


@contextmanager
def _environment(settings: Mapping[str, str | None]) -> Iterator[None]:
    """Set these variables for this process and its children, until the context ends."""
    before = {name: os.environ.pop(name) for name in settings if name in os.environ}
    os.environ.update({name: value for name, value in settings.items() if value is not None})
    try:
        yield
    finally:
        for name in settings:
            os.environ.pop(name, None)
        os.environ.update(before)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM: ray.init installs its own, which ends the process at once."""
    handler = signal.getsignal(signal.SIGTERM)
    # What is started inherits this and outlives its terminal, as it outlives Ctrl-C: the driver ends it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _reachable(address: str) -> str:
    """Return the address; for "auto", the one that Ray finds. Raises FleetError if this process cannot join.

    ray.init would wait for it, deaf to signals.
    """
    is_found, fix = address == "auto", "check this address"
    if is_found:
        services, utils = cast("Any", ray._private.services), cast("Any", ray._private.utils)
        try:
            address = str(services.get_ray_address_from_environment("auto", None))
        except ConnectionError as error:
            fix = "start Ray here, or set fleet.address"
            raise FleetError(f"fleet.address is auto: {error}", fix) from error
        found_by = f"the Ray processes of this machine and {utils.get_ray_address_file(None)}"
        fix = f"check {'RAY_ADDRESS' if os.environ.get('RAY_ADDRESS') else found_by}, or set fleet.address"
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or "/" in host:  # Ray would look for it for minutes
        if not is_found:
            fix = "give HOST:PORT of the cluster's head, e.g. 10.0.0.5:6379"
        raise _to_correct(f"no Ray cluster can be at {address!r}, which is not HOST:PORT", fix)
    try:
        _check_answers(host.strip("[]"), int(port))
    except OSError as error:
        raise FleetError(f"no Ray cluster answers at {address}: {error}", fix) from error
    _check_raylet(address)
    if is_found:  # from a process or a file, either of which may be anybody's
        _try_to_join(address, fix)
    return address


def _check_answers(host: str, port: int) -> None:
    """Raise OSError if no process of Ray answers."""
    with socket.create_connection((host, port), timeout=CONNECT_S) as process:
        process.settimeout(RAY_ANSWERS_S)
        with suppress(ConnectionError):  # one that expects TLS hangs up, which is an answer too
            process.sendall(_GRPC_BEGINS)
            process.recv(1)


def _check_raylet(address: str) -> None:
    """Raise FleetError if the raylet of this machine, through which a process joins, does not answer."""
    here = ray.util.get_node_ip_address()
    with suppress(RpcError, AuthenticationError):  # of the head: ray.init has better errors for these
        for machine in Head(address).machines():
            if machine.is_alive and machine.address == here:
                try:
                    _check_answers(here, machine.port)
                except OSError as error:
                    raylet = f"the raylet of this machine, at {here}:{machine.port}"
                    problem = f"{raylet}, does not answer: {error}"
                    raise FleetError(problem, f"end it and run `ray start --address={address}`") from error


def _try_to_join(address: str, fix: str) -> None:
    """Let another process join first, because it can be ended if Ray hangs. Raises FleetError."""
    program = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR')"
    # This process's own attempt prints the same again.
    silent: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    try:
        subprocess.run(python("-c", program, address), timeout=JOIN_S, check=False, **silent)
    except subprocess.TimeoutExpired as error:
        problem = f"Ray at {address} answers, but lets nobody join within {JOIN_S:.0f} s"
        raise FleetError(f"{problem}: it hangs, or is another user's", fix) from error
