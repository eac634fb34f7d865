"""A real S3 server and a Ray cluster for tests: each starts with the first test that asks, ends with all.

Tests in tests/cluster have the fixtures `s3_server` and `ray_cluster`; others import them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.warm.process import start

READY_WITHIN_S = 240.0  # moto takes 3 s alone, and more on a busy machine
KEY, SECRET = "test", "test-secret"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """url: an empty bucket. env: what a process needs to reach it; storage_options: the same for fsspec."""

    url: str
    endpoint: str
    env: dict[str, str]
    storage_options: dict[str, Any]


@pytest.fixture(scope="session")
def s3_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with moto(tmp_path_factory.mktemp("moto")) as endpoint:
        yield endpoint


@contextmanager
def moto(folder: Path) -> Iterator[str]:
    """Yield the endpoint of a moto server. folder: of its log."""
    command = [sys.executable, str(Path(__file__).with_name("moto_server.py")), "-H", "127.0.0.1", "-p"]
    with listening(command, folder) as endpoint:
        yield endpoint


@contextmanager
def ray_head(folder: Path, port: int, *options: str, **env: str) -> Iterator[None]:
    """Run the head of a Ray cluster on loopback. folder: of its files; a short name, as of its sockets."""
    log = folder / "log"
    with open(log, "w") as output:
        head = start(
            *("-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
            *("--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={folder / 'ray'}", *options),
            env=env,
            is_cold=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + READY_WITHIN_S
        while "Ray runtime started." not in log.read_text():
            assert head.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield
    finally:
        head.terminate()
        head.wait()


@contextmanager
def listening(command: list[str], folder: Path) -> Iterator[str]:
    """Yield the endpoint of a server that is started here. command: its port is added. folder: of its log."""
    port, log = free_port(), folder / "log"
    with open(log, "wb") as output:
        process = subprocess.Popen([*command, str(port)], stdout=output, stderr=output)
    try:
        wait_until_it_listens(port, process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()  # it keeps nothing
        process.wait(timeout=120)


@pytest.fixture
def s3_server(s3_process: str) -> S3Server:
    """Return a server with a bucket of this test's own."""
    return bucket_on(s3_process)


def bucket_on(endpoint: str) -> S3Server:
    """Make a bucket on a server."""
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    # boto3 and not s3fs.mkdir, which sends a LocationConstraint that no server accepts for us-east-1
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=bucket)
    return S3Server(
        url=f"s3://{bucket}",
        endpoint=endpoint,
        env={
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        },
        storage_options={"key": KEY, "secret": SECRET, "endpoint_url": endpoint},
    )


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """Yield the address of a cluster with room for two workers: `fleet.address` of many short jobs."""
    with warm_cluster() as address:
        yield address


@contextmanager
def warm_cluster() -> Iterator[str]:
    """Yield the address of a cluster whose workers start warm."""
    with warm_program("cluster") as (address, _):
        yield address


@contextmanager
def warm_program(name: str) -> Iterator[tuple[str, Callable[[str], None]]]:
    """Run a program of tests/warm that starts a cluster; yield its address, and what sends it a line."""
    with start("-m", f"tests.warm.{name}", stdin=subprocess.PIPE, stderr=None) as cluster:
        assert cluster.stdin is not None and cluster.stdout is not None
        printed = iter(cluster.stdout.readline, "")
        address = next(line.split()[1] for line in printed if line.startswith("at "))
        yield address, partial(print, file=cluster.stdin, flush=True)
        cluster.stdin.close()  # it ends by itself, and its processes with it


# Of each process that runs tests, below the ports that the kernel hands out to anybody.
_FIRST_PORT, _NUM_PORTS = 20_000, 1_500
_PORTS = itertools.count(random.randrange(_NUM_PORTS))


def free_port() -> int:
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    for number in itertools.islice(_PORTS, _NUM_PORTS):
        port = _FIRST_PORT + process * _NUM_PORTS + number % _NUM_PORTS
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


def wait_until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"moto_server ended: {log.read_text()}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"moto_server does not listen after {READY_WITHIN_S} s: {log.read_text()}")
