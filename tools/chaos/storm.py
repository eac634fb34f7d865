"""A job in a storm: faults strike by chance while it runs; its command is run again until it ends well."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.faulty_s3 import Fault
from tools.chaos.faults import FAULTS, UPLOADS, Struck, schedule
from tools.chaos.rig import Driver, Rig

LOOK_S = 0.2
STAYS = 0.7  # how often a driver is started again where it was, where it need not wait for the lock to expire


@dataclass(slots=True)
class Happened:
    """strikes: when, by the clock of the trace, what and to whom. endings: exit codes of drivers."""

    strikes: list[tuple[float, str, Struck]] = field(default_factory=list)
    endings: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What is to come. seed: decides what strikes when, and whom. gap_s: seconds between two faults, at least
    and at most. longest_s: that a cut or an outage lasts. limit_s: in which the job must end nevertheless.
    """

    seed: int
    num_faults: int
    gap_s: tuple[float, float] = (2.0, 30.0)
    longest_s: float = 60.0
    limit_s: float = 7200.0


class Storm:
    def __init__(self, rig: Rig, forecast: Forecast, *, say: Callable[[str], None]) -> None:
        self._rig, self._forecast, self._say = rig, forecast, say
        self._chance = Random(forecast.seed)
        self._schedule = schedule(Random(forecast.seed), num_faults=forecast.num_faults, gap_s=forecast.gap_s)
        self._next = next(self._schedule, None)
        self._began, self._last_s = time.monotonic(), 0.0
        self._under_way: list[tuple[float, str, Struck]] = []  # until when
        self.happened = Happened()

    def run(self, job: Path) -> Happened:
        """Render the job, whatever it takes. Raises TimeoutError when it takes longer."""
        self._rig.s3.goes_wrong(UPLOADS)
        driver = None
        try:
            while driver is None or driver.process.poll() != 0:
                if self._now() > self._forecast.limit_s:
                    raise TimeoutError(f"not done after {self._now():.0f} s; the driver:\n{_end_of(driver)}")
                driver = self._driver(driver, job)
                self._mend()
                self._strike()
                self._rig.keep_up()
                time.sleep(LOOK_S)
        finally:
            self._mend(all_of_it=True)
            self._rig.s3.goes_wrong(Fault())
        self.happened.endings[0] += 1
        self.happened.seconds = self._now()
        return self.happened

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _driver(self, driver: Driver | None, job: Path) -> Driver | None:
        """Return the driver at work: another, on any host, where the one before has ended."""
        if driver is not None:
            if (code := driver.process.poll()) is None:
                return driver
            self.happened.endings[code] += 1
            self._say(f"{self._now():6.1f} s  driver ended with {code}: {_end_of(driver, lines=5)}")
        up = [node.host for node in self._rig.nodes if node.is_up]
        if self._rig.hosts[0] not in up:
            return None
        stays = driver is not None and driver.host in up and self._chance.random() < STAYS
        return self._rig.start_driver(job, driver.host if driver and stays else self._chance.choice(up))

    def _strike(self) -> None:
        if not self._rig.begun():
            self._last_s = self._now()  # before, there is nothing to lose
        if self._next is None or self._now() < self._last_s + self._next[0]:
            return
        name, at_s = self._next[1], time.time()
        self._next, self._last_s = next(self._schedule, None), self._now()
        if name in {kind for _, kind, _ in self._under_way}:
            return  # mended, the first of two would end the second
        struck = FAULTS[name](self._rig, self._chance, self._forecast.longest_s)
        if struck is None:
            return
        self.happened.strikes.append((at_s, name, struck))
        lasts = f" for {struck.lasts_s:.0f} s" if struck.lasts_s else ""
        self._say(f"{self._now():6.1f} s  {name}: {struck.where}{lasts}")
        self._under_way.append((self._now() + struck.lasts_s, name, struck))

    def _mend(self, *, all_of_it: bool = False) -> None:
        over = [one for one in self._under_way if all_of_it or one[0] <= self._now()]
        for one in over:
            self._under_way.remove(one)
            one[2].mend()


def _end_of(driver: Driver | None, *, lines: int = 40) -> str:
    return "\n".join(driver.said.splitlines()[-lines:]) if driver else "there was none"
