"""Ray on a host, started again and again, as the service of a machine would."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Collection, Mapping
from contextlib import suppress

from tests.warm.process import start
from tools.chaos.network import Host

PORT = 6379
OBJECT_STORE_BYTES = 100_000_000  # records of 1 KB are all that passes through it; Ray wants 75 MB


class Node:
    """`ray start --block`, which ends when any process of it does. The head has nodes that join it."""

    def __init__(self, host: Host, head: Host, *, num_cpus: int, env: Mapping[str, str]) -> None:
        self.host, self._head, self._num_cpus, self._env = host, head, num_cpus, env
        self._process: subprocess.Popen[str] | None = None
        self._num_starts = 0

    @property
    def is_head(self) -> bool:
        return self.host is self._head

    @property
    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    @property
    def is_up(self) -> bool:
        return not self.has_ended and "Ray runtime started." in self.log()

    def log(self) -> str:
        """Return what its last start has printed."""
        return (self.host.folder / f"ray-{self._num_starts}.log").read_text(errors="replace")

    def start(self, *, sparing: Collection[int] = ()) -> None:
        """Start it anew; what is left of it on its host goes first, but for these processes."""
        for pid in set(self.host.processes()) - set(sparing):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._num_starts += 1
        # A folder for each: a head would find the address of the one before it, and take it for its own.
        folder, head = self.host.folder / f"r{self._num_starts}", f"{self._head.address}:{PORT}"
        role = (
            ("--head", f"--port={PORT}", "--include-dashboard=false")
            if self.is_head
            else (f"--address={head}",)
        )
        with open(self.host.folder / f"ray-{self._num_starts}.log", "w") as output:
            self._process = start(
                *("-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *role),
                f"--node-ip-address={self.host.address}",
                f"--num-cpus={self._num_cpus}",
                f"--object-store-memory={OBJECT_STORE_BYTES}",
                f"--temp-dir={folder}",
                env={**self._env, **self.host.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
