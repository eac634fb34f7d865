"""One bad input: the files of a folder of its own, and what is run there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tools.fuzz.material import Material


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """told: one line about it. run: what a user does, in its folder. codes: exit codes that are answers."""

    told: str
    run: Callable[[], None]
    codes: tuple[int, ...] = (0, 2)


Make = Callable[[Random, Path, Material], Case]


def command(*arguments: str | Path) -> Callable[[], None]:
    """Return what runs `framefleet` with these arguments."""

    def run() -> None:
        import sys

        from framefleet.__main__ import main

        sys.argv = ["framefleet", *map(str, arguments)]
        main()

    return run


def reported(call: Callable[[], object]) -> Callable[[], None]:
    """Return what makes a call of the Python API, its errors reported as by a command."""

    def run() -> None:
        from framefleet.jobs.show.console import guard_streams, quiet_libraries, reporting

        guard_streams()
        quiet_libraries()
        with reporting(verbose=False):
            call()

    return run
