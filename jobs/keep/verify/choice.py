"""Which rows of an output are rendered again to verify it, and where."""

from __future__ import annotations

from dataclasses import dataclass

SAMPLE = 8  # rows, unless another number is given: it is minutes where one takes one


@dataclass(frozen=True, slots=True, kw_only=True)
class RowChoice:
    """row_ids: these; without any a sample, another for each seed. by_fleet: as the job rendered them."""

    sample: int = SAMPLE
    seed: int = 0
    row_ids: tuple[str, ...] = ()
    by_fleet: bool = False
