"""Render a recorded row again in a new process.

This way, what a user's recipe leaves behind in its process cannot affect the verdict of another row.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

from framefleet.api.errors import FramefleetError, JobError
from framefleet.api.jobs import claim_of
from framefleet.api.outputs import Output, Record, Store
from framefleet.api.texts import python
from framefleet.pipeline.guards.own_python import module_path
from framefleet.pipeline.guards.sandbox import ending
from framefleet.plugins.keep.replay.given import Given
from framefleet.plugins.keep.replay.recorded_row import recorded_of
from framefleet.plugins.keep.replay.replay import Replayed, Replayer


def replay_alone(output: str, record: Record, given: Given) -> Replayed:
    """Do what `Replayer.replay` does, in a new process that loads the model."""
    ended = subprocess.run(
        python("-m", __name__),
        input=pickle.dumps((output, record, given)),
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": module_path()},
        check=False,
    )
    if ended.returncode:
        raise JobError(
            f"the process that rendered it again ended with {ending(ended.returncode)}",
            "for details, run `framefleet replay` on this row",
        )
    outcome: Replayed | FramefleetError = pickle.loads(ended.stdout)  # from our own process
    if isinstance(outcome, FramefleetError):
        raise outcome
    return outcome


def main() -> None:
    output, record, consent = pickle.load(sys.stdin.buffer)
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a recipe may print
    opened = Output(Store(output, consent.storage_options)).holding([record.row_id])
    try:
        outcome: Replayed | FramefleetError = Replayer(consent).replay(
            recorded_of(opened, claim_of(opened.store), record, consent)
        )
    except FramefleetError as error:
        outcome = error
    with answer:
        pickle.dump(outcome, answer)


if __name__ == "__main__":
    main()
