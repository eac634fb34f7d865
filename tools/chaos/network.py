"""Hosts on one machine, each with an address, a name and a small disk of its own, joined by a switch.

Links can be cut and joined, hosts lose their power. Needs root and namespaces of Linux; `why_not` tells.
Nothing of it is seen outside: several may stand side by side.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tools.chaos.host_process import kill_all, processes_of
from tools.chaos.namespaces import HOST

NETWORK = "10.99.0"
SWITCH = f"{NETWORK}.1"
_UNSHARE = ("unshare", "--net", "--uts", "--mount")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """pid: of the process that stands for it. switch: of the one at the other end of its link."""

    name: str
    address: str
    folder: Path
    pid: int
    switch: int = 0

    @property
    def tmp(self) -> Path:
        """Its small disk, as processes in it see it."""
        return self.folder / "tmp"

    @property
    def tmp_from_outside(self) -> Path:
        return Path(f"/proc/{self.pid}/root{self.tmp}")

    @property
    def env(self) -> Mapping[str, str]:
        """What puts a process of tests/warm into it."""
        return {HOST: str(self.pid), "TMPDIR": str(self.tmp)}

    def processes(self, *, called: str = "") -> list[int]:
        """Return the processes in it whose title or name begins so."""
        return [pid for pid in processes_of(self.pid) if _title(pid).startswith(called)]

    def kill(self) -> None:
        """Take its power."""
        kill_all(self.pid)

    def cut(self) -> None:
        """Pull its cable: nothing arrives any more, and nobody is notified."""
        _ip(self.switch, "link", "set", self.name, "down")

    def join(self) -> None:
        _ip(self.switch, "link", "set", self.name, "up")

    def lose(self, address: str) -> None:
        """Have no way to an address, while all else is as it was."""
        _ip(self.pid, "route", "add", "unreachable", address)

    def find(self, address: str) -> None:
        """Have its way there again."""
        _ip(self.pid, "route", "flush", "type", "unreachable", address)


@cache
def why_not() -> str:
    """Return what is missing for hosts on this machine; "" where nothing is."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts are network namespaces of Linux, which need root"
    if missing := [name for name in ("unshare", "nsenter", "ip", "mount") if shutil.which(name) is None]:
        return f"{', '.join(missing)} are missing; install iproute2 and util-linux"
    tried = subprocess.run([*_UNSHARE, "ip", "link", "add", "type", "veth"], capture_output=True, text=True)
    return f"network namespaces are not allowed here: {tried.stderr.strip()}" if tried.returncode else ""


@contextmanager
def network(num_hosts: int) -> Iterator[tuple[Host, list[Host]]]:
    """Yield the switch, which has the address SWITCH, and so many hosts."""
    with ExitStack() as stack:
        # Short: Ray's sockets lie in folders of hosts
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ff", dir="/tmp")))
        switch = stack.enter_context(_started("s", folder, SWITCH))
        _ip(switch.pid, "link", "add", "br0", "type", "bridge")
        _ip(switch.pid, "addr", "add", f"{SWITCH}/24", "dev", "br0")
        _ip(switch.pid, "link", "set", "br0", "up")
        hosts = []
        for number in range(1, num_hosts + 1):
            host = stack.enter_context(
                _started(f"h{number}", folder, f"{NETWORK}.{10 + number}", switch=switch.pid)
            )
            _plug_in(host)
            hosts.append(host)
        yield switch, hosts


@contextmanager
def _started(name: str, folder: Path, address: str, *, switch: int = 0) -> Iterator[Host]:
    own = folder / name
    own.mkdir()
    process = subprocess.Popen(
        [*_UNSHARE, sys.executable, "-IS", Path(__file__).with_name("host_process.py"), name, own],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Host(name=name, address=address, folder=own, pid=process.pid, switch=switch)
        process.stdin.close()


def _plug_in(host: Host) -> None:
    ends = ("name", host.name, "netns", str(host.switch), "type", "veth", "peer", "name", "eth0")
    subprocess.run(["ip", "link", "add", *ends, "netns", str(host.pid)], check=True)
    _ip(host.switch, "link", "set", host.name, "master", "br0", "up")
    _ip(host.pid, "addr", "add", f"{host.address}/24", "dev", "eth0")
    _ip(host.pid, "link", "set", "eth0", "up")


def _ip(host: int, *arguments: str) -> None:
    subprocess.run(["nsenter", f"--target={host}", "--net", "ip", *arguments], check=True)


def _title(pid: int) -> str:
    """Return what a process calls itself, as `ray::Worker`; of others the name of the program."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
        return title if title.startswith("ray::") else Path(title).name
    except OSError:
        return ""
