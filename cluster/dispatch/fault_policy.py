"""What a job says below `retries:`: how many errors, deaths and faults it tolerates, and for how long."""

from __future__ import annotations

from pydantic import Field

from framefleet.pipeline.guards.strict_model import Strict
from framefleet.pipeline.outputs.stores.retries import OUTAGE_S

_ROWS_TO_BLAME = 4
# Each row that was struck runs alone before the machine is blamed; about as many as a worker ever holds.
_MOST_SUSPECTS = 32
# Rows given up with none done in between. A proven machine that loads the model each time, and dies of each
# row, may yet be bad: then this many good rows are in failures/, which the next run tries again.
MOST_GIVEN_UP = 24
_STALL_FACTOR = 10
_SHORTEST_STALL_S = 60.0  # a disk that spins up, a link that comes back, a kernel that is tuned
SUSPECT_DEATHS = 2  # one death is mostly the machine's own; after a second one with the same row, find out


class FaultPolicy(Strict):
    """When a row, a worker or the whole run is given up."""

    attempts: int = Field(
        default=3,
        ge=1,
        description="Give up on a row after this many errors. If earlier rows of its process may be why, it "
        "is tried once more, in a new process.",
    )
    worker_deaths: int = Field(
        default=3,
        ge=1,
        description="Give up on a row after it has killed this many workers, the last time while running "
        "alone. Raise it where machines are taken away often.",
    )
    faults: int = Field(
        default=3,
        ge=1,
        description="Stop using a machine or a worker after this many faults in a row, with no row done in "
        "between.",
    )
    stall_s: float = Field(
        default=1800,  # a first forward may be compiled for many minutes
        gt=0,
        description="End a worker whose rows have made no progress for this long; sooner where it is known "
        "how long such rows take.",
    )

    drain_s: float = Field(  # two steps of the largest videos, then clips and a gigabyte a row to upload
        default=120,
        ge=0,
        description="Seconds that workers have to save their rows after Ctrl-C, SIGTERM or SIGHUP.",
    )
    checkpoint_every_s: float = Field(  # at most a gigabyte of a row of ten minutes: 2 MB/s for each GPU
        default=600,
        ge=0,
        description="Seconds between saves of half-done rows in checkpoints/, so that a worker's death loses "
        "no more than this; 0: never.",
    )
    copies: bool = Field(
        default=True,
        description="When no row waits, have idle workers render rows that are late or wait behind others "
        "on their workers; the first to finish counts.",
    )
    store_outage_s: float = Field(
        default=OUTAGE_S,
        ge=0,
        description="How long the output, the table or images and videos may be out of reach before the "
        "job ends.",
    )

    def quarantines(self, num_deaths: int, *, is_alone: bool) -> bool:
        """is_alone: nothing else was in the worker's hands when it died last."""
        return is_alone and num_deaths >= self.worker_deaths

    def despairs(self, num_deaths: int, *, num_given_up: int, num_suspects: int, is_proven: bool) -> bool:
        """Tell whether workers die of something else than of a row.

        num_deaths: since a row was last done or given up there; num_given_up: since one was last done.
        num_suspects: rows that are rendered alone by now. is_proven: rows were done on that machine before.
        """
        # There one row is given up after `worker_deaths`. Elsewhere none is: those that were struck take
        # turns, alone, and if one of them is done the machine is proven.
        turns = max(_ROWS_TO_BLAME, min(num_suspects, _MOST_SUSPECTS))
        to_blame = _ROWS_TO_BLAME * self.worker_deaths if is_proven else SUSPECT_DEATHS + turns
        return num_deaths > max(self.faults, to_blame) or num_given_up > MOST_GIVEN_UP

    @property
    def longest_writing_s(self) -> float:
        """How long a clip may be on its way from its frames to the store."""
        return self.stall_s + self.store_outage_s

    def longest_still_s(self, seconds_per_row: float | None, *, num_rows: int) -> float:
        """Return how long the rows of a worker may come no further.

        seconds_per_row: that the worker needed for such rows, if it has done any. num_rows: of a forward.
        """
        if seconds_per_row is None:
            return self.stall_s
        # One row alone, as a plain call, may take as long as all rows of a forward together.
        return min(self.stall_s, max(_SHORTEST_STALL_S, _STALL_FACTOR * num_rows * seconds_per_row))
