"""Three hosts with Ray, an S3 server, and drivers on these hosts: what tests of faults run on."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.jobs import descendants
from tests.servers import S3Server
from tests.warm.process import start
from tools.chaos.network import Host, network
from tools.chaos.nodes import PORT, Node
from tools.chaos.s3 import HostsS3, hosts_s3
from tools.chaos.traced import TRACE, Begun, gate, read_trace, sickness

NUM_HOSTS = 3
UP_WITHIN_S = 300.0  # 7 s on a free machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """`framefleet render` on a host. log: where it prints."""

    process: subprocess.Popen[str]
    host: Host
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def finish(self, *, timeout_s: float = 400) -> str:
        """Wait for its good end; return what it said."""
        code = self.process.wait(timeout=timeout_s)
        assert code == 0, f"exit {code}: {self.said}"
        return self.said


@dataclass(slots=True, kw_only=True)
class Rig:
    """folder: of what drivers print. drivers: all that were started."""

    hosts: list[Host]
    nodes: list[Node]
    s3: HostsS3
    folder: Path
    drivers: list[Driver] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Of its Ray, for `fleet.address`."""
        return f"{self.hosts[0].address}:{PORT}"

    @property
    def trace(self) -> Path:
        """What `traced.py` writes."""
        return self.folder / "trace"

    @property
    def is_up(self) -> bool:
        return all(node.is_up for node in self.nodes)

    def begun(self) -> list[Begun]:
        """Return what workers have begun, in order of time."""
        return read_trace(self.trace)

    def close_gate(self, host: Host) -> None:
        """Have rows that are begun on a host from now on wait there."""
        gate(self.trace, host.name).touch()

    def make_sick(self, host: Host) -> None:
        """Have every row fail there, as on a broken disk."""
        sickness(self.trace, host.name).touch()

    def make_well(self, host: Host) -> None:
        sickness(self.trace, host.name).unlink(missing_ok=True)

    def open_gate(self, host: Host) -> None:
        gate(self.trace, host.name).unlink(missing_ok=True)

    def start_driver(self, job: Path, host: Host) -> Driver:
        log = self.folder / f"driver-{len(self.drivers)}.log"
        with open(log, "w") as output:
            process = start(
                *("-m", "framefleet.jobs.cli", "render", job),
                env={**self.s3.env, **host.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.drivers.append(Driver(process=process, host=host, log=log))
        return self.drivers[-1]

    def drivers_on(self, host: Host) -> list[Driver]:
        return [one for one in self.drivers if one.host is host and one.process.poll() is None]

    def keep_up(self) -> list[Node]:
        """Start what has ended of Ray, all of it where its head has; return what was started."""
        ended = [node for node in self.nodes if node.has_ended]
        if self.nodes[0] in ended:
            ended = self.nodes
        for node in ended:
            drivers = [one.process.pid for one in self.drivers_on(node.host)]
            node.start(sparing={pid for driver in drivers for pid in (driver, *descendants(driver))})
        return ended

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + UP_WITHIN_S
        while not self.is_up:
            self.keep_up()
            logs = "\n".join(node.log() for node in self.nodes)
            assert time.monotonic() < deadline, f"Ray is not up on every host:\n{logs}"
            time.sleep(0.2)


@contextmanager
def rig(server: S3Server, folder: Path, *, cpus_per_host: int = 1) -> Iterator[Rig]:
    """Yield three hosts with Ray, which has its head on the first, and an empty bucket that they reach."""
    with network(NUM_HOSTS) as (switch, hosts), hosts_s3(server, switch) as s3:
        env = {**s3.env, TRACE: str(folder / "trace")}
        nodes = [Node(host, hosts[0], num_cpus=cpus_per_host, env=env) for host in hosts]
        made = Rig(hosts=hosts, nodes=nodes, s3=s3, folder=folder)
        made.wait_until_up()
        yield made
