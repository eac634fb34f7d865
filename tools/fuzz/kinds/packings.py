"""Configs of packed weights, and headers of GGUF files: what is let through, libraries read within bounds."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.packed_configs import events_of, mutated, warm
from tests.random_gguf import compare, random_file
from tools.fuzz.case import Case, reported
from tools.fuzz.child import MARK
from tools.fuzz.material import Material


def packings(rng: Random, folder: Path, _: Material) -> Case:
    """A config that a component has, read by both libraries: nothing runs, and nothing is written."""
    config = mutated(rng)
    warm()  # before the child is forked

    def read() -> None:
        if events_of(config, folder):
            (folder / MARK).touch()

    return Case(told=f"{config!r:.200}", run=reported(read))


def gguf_headers(rng: Random, folder: Path, _: Material) -> Case:
    """A file with few settings and tensors, of which some numbers are odd, read by the package too."""
    path = folder / "x.gguf"
    path.write_bytes(random_file(rng))
    return Case(told=f"{path.read_bytes()[:80]!r}", run=reported(lambda: compare(path)))
