"""A host: a process with a network, a name and mounts of its own, into which others are put.

Run as a program by the name of the host and a folder, within `unshare --net --uts --mount`. Says when it is
ready, and ends with its standard input: so nothing in it outlives the test that made it. The standard library
alone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

BOOT_ID = "/proc/sys/kernel/random/boot_id"
TMP_MEGABYTES = 64  # what clips need while they are encoded; small, so that it is soon filled


def processes_of(host: int) -> Iterator[int]:
    """Yield the processes in the network of the process `host`, but not itself."""
    network = os.readlink(f"/proc/{host}/ns/net")
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "ns/net") == network and int(entry.name) != host:
                yield int(entry.name)
        except OSError:  # it ended
            continue


def kill_all(host: int) -> None:
    """Take the power from a host: every process in it, and those that these started meanwhile."""
    while found := list(processes_of(host)):
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if all(_is_gone(pid) for pid in found):
            return


def _is_gone(pid: int) -> bool:
    """Tell whether a process has ended, though its parent may not have asked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def main(name: str, folder: Path) -> None:
    socket.sethostname(name)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # Two hosts have booted at two times: by this a driver knows whether a process id means the same to it.
    (folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
    subprocess.run(["mount", "--bind", folder / "boot_id", BOOT_ID], check=True)
    (folder / "tmp").mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={TMP_MEGABYTES}m", "tmpfs", folder / "tmp"], check=True
    )
    print("ready", flush=True)
    sys.stdin.read()
    kill_all(os.getpid())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
