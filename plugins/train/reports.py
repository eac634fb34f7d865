"""What a training reports, as plain values; `loss.jsonl` in its output has one line per step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter

from framefleet.api.commands import duration
from framefleet.api.errors import count_text
from framefleet.api.outputs import Store, read_as

LOSSES_PATH = "loss.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparing:
    """Rows whose latents and embeddings are there, if all processes are as far as the first."""

    done: int
    total: int

    def parts(self) -> Sequence[str]:
        return [f"{self.done:,} of {count_text(self.total, 'row')} prepared"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. step: its number, from 0. loss: the mean over all of its rows.

    grad_norm: None if fp16 overflowed and the step was skipped.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A checkpoint is complete: a killed run continues after this many steps."""

    steps: int


_STEP = TypeAdapter(Step)
TrainingReport = Preparing | Step | Kept | str  # text: what is being done


def write_losses(store: Store, steps: Sequence[Step]) -> None:
    """Write all of them: no object store appends."""
    store.write(LOSSES_PATH, "".join(json.dumps(asdict(step)) + "\n" for step in steps).encode())


def read_losses(store: Store, *, before: int | None = None) -> list[Step]:
    """Return what was written, or what of it came before a step; a resumed run does the others again."""
    if not store.exists(LOSSES_PATH):
        return []
    where = store.url_of(LOSSES_PATH)
    fix = f"delete {where}, and run the same command"
    steps = [read_as(_STEP, line, where, fix=fix) for line in store.read(LOSSES_PATH).splitlines()]
    return [step for step in steps if before is None or step.step < before]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainProgress:
    """Steps of a training."""

    done: int  # of `total` steps, in earlier runs too
    total: int
    loss: float  # the mean of the last steps
    learning_rate: float
    steps_per_s: float | None  # of this run; None before its second step, as is eta_s
    eta_s: float | None
    kept: int  # steps in the last checkpoint

    def parts(self) -> Sequence[str]:
        parts = [f"{self.done:,}/{count_text(self.total, 'step')}", f"loss {self.loss:.4g}"]
        if rate := self.steps_per_s:
            parts.append(f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / rate:.1f} s/step")
        if self.eta_s is not None:
            parts.append(f"{duration(self.eta_s)} left")
        parts.append(f"learning rate {self.learning_rate:.2g}")
        if self.kept:
            parts.append(f"checkpoint {self.kept:,}")
        return parts
