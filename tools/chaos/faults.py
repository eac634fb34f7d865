"""What can befall a job: each fault strikes, lasts, and is mended. Chance and time are given from outside."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Protocol

from tests.faulty_s3 import Fault
from tools.chaos.network import Host
from tools.chaos.rig import Rig

WORKER = "ray::Worker"
# What goes wrong all the time: one upload in twenty is refused, as by a busy server.
UPLOADS = Fault(kind="503", share=0.05, methods=frozenset({"PUT", "POST"}))
SHORTEST_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """What a fault did. lost: the worker processes whose rows it took. mend: what ends it, after lasts_s."""

    where: str
    lost: frozenset[int] = frozenset()
    lasts_s: float = 0.0
    mend: Callable[[], None] = lambda: None


class Strike(Protocol):
    def __call__(self, rig: Rig, chance: Random, longest_s: float) -> Struck | None:
        """Strike now, for longest_s at most; None where there is nothing to strike."""


def kill_driver(rig: Rig, chance: Random, longest_s: float) -> Struck | None:
    running = [driver for host in rig.hosts for driver in rig.drivers_on(host)]
    if not running:
        return None
    driver = chance.choice(running)
    lost = frozenset(_all_workers(rig))  # they end with it
    driver.process.kill()
    return Struck(where=driver.host.name, lost=lost)


def kill_worker(rig: Rig, chance: Random, longest_s: float) -> Struck | None:
    workers = sorted(_all_workers(rig))
    if not workers:
        return None
    pid = chance.choice(workers)
    _kill(pid)
    return Struck(where=f"pid {pid}", lost=frozenset({pid}))


def kill_raylet(rig: Rig, chance: Random, longest_s: float) -> Struck | None:
    host = chance.choice(rig.hosts[1:])
    return _struck_host(host, host.processes(called="raylet"))


def kill_head(rig: Rig, chance: Random, longest_s: float) -> Struck | None:
    """The GCS, without which there is no cluster."""
    found = rig.hosts[0].processes(called="gcs_server")
    lost = frozenset(_all_workers(rig))
    for pid in found:
        _kill(pid)
    return Struck(where=rig.hosts[0].name, lost=lost) if found else None


def kill_host(rig: Rig, chance: Random, longest_s: float) -> Struck | None:
    """All of a host's processes at once, as when its power fails; a driver that is there as well."""
    host = chance.choice(rig.hosts[1:])
    lost = frozenset(host.processes(called=WORKER))
    host.kill()
    return Struck(where=host.name, lost=lost)


def cut_link(rig: Rig, chance: Random, longest_s: float) -> Struck | None:
    host = chance.choice(rig.hosts)
    lost = frozenset(host.processes(called=WORKER))
    host.cut()
    return Struck(where=host.name, lost=lost, lasts_s=_seconds(chance, longest_s), mend=host.join)


def kill_s3(rig: Rig, chance: Random, longest_s: float) -> Struck | None:
    rig.s3.kill()
    return Struck(where="S3", lasts_s=_seconds(chance, longest_s), mend=rig.s3.start)


def sicken_s3(rig: Rig, chance: Random, longest_s: float) -> Struck | None:
    """It hangs, breaks connections, carries out what it does not answer, or fails, at every third request."""
    kind = chance.choice(("hang", "reset", "lost", "500"))
    rig.s3.goes_wrong(Fault(kind=kind, share=1 / 3))
    return Struck(
        where=f"S3, {kind}", lasts_s=_seconds(chance, longest_s), mend=lambda: rig.s3.goes_wrong(UPLOADS)
    )


def fill_disk(rig: Rig, chance: Random, longest_s: float) -> Struck | None:
    """The temporary folder of a host, to its last byte."""
    host = chance.choice(rig.hosts)
    ballast = host.tmp_from_outside / "ballast"
    with open(ballast, "ab", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1 << 20)):
            pass

    def mend() -> None:
        ballast.unlink(missing_ok=True)

    return Struck(where=host.name, lasts_s=_seconds(chance, longest_s), mend=mend)


FAULTS: dict[str, Strike] = {
    "driver killed": kill_driver,
    "worker killed": kill_worker,
    "raylet killed": kill_raylet,
    "head killed": kill_head,
    "host killed": kill_host,
    "link cut": cut_link,
    "S3 server killed": kill_s3,
    "S3 server sick": sicken_s3,
    "disk full": fill_disk,
}
# How often each comes, compared with the others: as in a fleet, where single processes die most.
WEIGHTS = {"worker killed": 3, "driver killed": 2, "link cut": 2}


def schedule(chance: Random, *, num_faults: int, gap_s: tuple[float, float]) -> Iterator[tuple[float, str]]:
    """Yield so many faults: seconds since the one before, and its name. Each comes in turn, in any order."""
    deck: list[str] = []
    for _ in range(num_faults):
        if not deck:
            deck = [name for name in FAULTS for _ in range(WEIGHTS.get(name, 1))]
            chance.shuffle(deck)
        yield chance.uniform(*gap_s), deck.pop()


def _seconds(chance: Random, longest_s: float) -> float:
    return chance.uniform(SHORTEST_S, longest_s)


def _all_workers(rig: Rig) -> Iterator[int]:
    for host in rig.hosts:
        yield from host.processes(called=WORKER)


def _struck_host(host: Host, pids: list[int]) -> Struck | None:
    lost = frozenset(host.processes(called=WORKER))
    for pid in pids:
        _kill(pid)
    return Struck(where=host.name, lost=lost) if pids else None


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it was quicker
        os.kill(pid, signal.SIGKILL)
