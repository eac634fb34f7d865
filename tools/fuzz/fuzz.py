"""From a seed to cases, and from each to whether it was answered as it should be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from tools.fuzz.child import Outcome, run
from tools.fuzz.judge import defect
from tools.fuzz.kinds import KINDS
from tools.fuzz.material import Material

# Nothing here asks anybody: names of the hub are looked for in an empty cache, and no cloud has credentials.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "COLUMNS": "200",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """number: of the case, in this seed. defect: None where all is well."""

    number: int
    kind: str
    told: str
    outcome: Outcome
    defect: str | None


def fuzz(
    seed: int, numbers: Sequence[int], folder: Path, *, kinds: Sequence[str] = (), keep: bool = False
) -> Iterator[Result]:
    """Yield what came of each case; a case depends on the seed and its number alone, not on those before.

    kinds: those to draw from; without any, all. keep: the files of cases without a defect too.
    """
    os.environ.update(ENVIRONMENT)
    torch.set_num_threads(1)  # a forked child has none of its parent's other threads, and would wait for them
    (folder / "material").mkdir()
    material, chosen = Material(folder / "material"), [kind for kind in KINDS if not kinds or kind in kinds]
    for number in numbers:
        yield _one(seed, number, chosen[number % len(chosen)], folder / str(number), material, keep=keep)


def _one(seed: int, number: int, kind: str, folder: Path, material: Material, *, keep: bool) -> Result:
    folder.mkdir()
    case = KINDS[kind](Random(f"{seed} {number}"), folder, material)
    outcome = run(case, folder)
    found = defect(case, outcome)
    if not (found or keep):
        shutil.rmtree(folder, ignore_errors=True)
    return Result(number=number, kind=kind, told=case.told, outcome=outcome, defect=found)
