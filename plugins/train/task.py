"""A training task computes one loss from rows. Loop, checkpoints and cluster know no more of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from framefleet.api.clips import Frames
from framefleet.api.texts import canonical_json
from framefleet.pipeline.errors import shape_text

Prepared = dict[str, Tensor]  # what a row's loss needs; a safetensors file can hold it


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Bucket:
    """What all rows of a batch have in common: the shape of their videos, and conditions, as JSON."""

    num_frames: int
    height: int
    width: int
    conditions: str = ""

    def __str__(self) -> str:
        conditions = f" with {self.conditions}" if self.conditions else ""
        return f"{shape_text(self.num_frames, self.height, self.width)}{conditions}"


NO_FRAMES = Bucket(num_frames=0, height=0, width=0)  # of rows of a task that needs no video


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """A row that passed its checks.

    index: in the table. video: path or URL, None where the task needs none; sha256: of its bytes;
    first_frame: where the row's part of it begins. arguments: of the pipeline's `__call__`: the prompt, and
    what else of it the row gives (fps, ...).
    repeats: how often an epoch has it.
    """

    index: int
    video: str | None
    sha256: str | None
    arguments: Mapping[str, Any]
    bucket: Bucket
    repeats: int = 1
    first_frame: int = 0

    @property
    def seed(self) -> int:
        """Of what its pipeline draws for it: by its content, so that rows before it may come and go."""
        content = [self.sha256, dict(self.arguments), *([self.first_frame] if self.first_frame else [])]
        encoded = canonical_json(content).encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.sha256(encoded).digest()[:8], "big") >> 1


class TrainingTask(Protocol):
    """A way to train parts of one loaded pipeline."""

    @property
    def trained(self) -> Mapping[str, nn.Module]:
        """The components that change, by their names in the pipeline."""

    @property
    def keeps_prepared(self) -> bool:
        """Whether what `prepare` returns is worth keeping, for all epochs."""

    def prepare(self, row: TrainingRow, frames: Frames | None) -> Prepared:
        """Return all that can be computed once. frames: uint8 RGB (T, H, W, 3) of the row's bucket.

        Runs without gradients, before `loss` changes any weight it uses.
        """

    def loss(self, batch: Sequence[Prepared], generator: torch.Generator) -> Tensor:
        """Return the mean loss of rows of one bucket, 0-d fp32, with gradients.

        All randomness comes from `generator` (CPU): equal batch, weights and generator, equal loss.
        """


@runtime_checkable
class Finishes(Protocol):
    """A task that has more to do when its weights are final, before the model is written."""

    def finish(self, rows: Iterable[Prepared]) -> None:
        """rows: some of those that were trained on; the more, the more exact what is measured over them."""
