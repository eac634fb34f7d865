"""A recipe that harms a rank of its worker, once for each row that says so: `tests.rank_faults:faulty`."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import framefleet
from framefleet import Request
from framefleet.pipeline.recipes.recipe import generate

STAGES = ("start", "encode", "step", "decode")
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@framefleet.recipe(batched=True)
def faulty(pipe: Any, request: Request, *, faults: str = "", fault: str = "") -> Any:
    """Do what `fault` says, as "1 kill step", unless a file in the folder `faults` says that it was done.

    "hang" is a call that never ends. Rank 1 computes nothing but steps, so it hangs in these.
    """
    done = Path(faults, fault.replace(" ", "-"))
    if not fault or done.exists():
        return generate(pipe, request)
    rank, way, stage = fault.split()
    if (rank, way) == ("1", "hang"):
        arguments = {**request.arguments, "attention_kwargs": {"hang": _Hanging(done)}}
        return generate(pipe, dataclasses.replace(request, arguments=arguments))
    harm = _Harm(done, rank=int(rank), number=_SIGNALS.get(way))
    if stage == "start":
        harm.when_there()
    elif stage == "encode":
        if rank != "0" and not _child():  # a new worker's ranks are started by its first step
            generate(pipe, request)
        harm.now()
    else:
        last = request.arguments["num_inference_steps"] - 1
        step = 0 if stage == "step" else last

        def at_step_end(_pipe: Any, index: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if index == step:
                harm.now()
            return tensors

        arguments = {**request.arguments, "callback_on_step_end": at_step_end}
        return generate(pipe, dataclasses.replace(request, arguments=arguments))
    return generate(pipe, request)


class _Hanging:
    """An argument that a rank never has read."""

    def __init__(self, done: Path) -> None:
        self._done = done

    def __reduce__(self) -> tuple[object, ...]:
        return _hang, (self._done,)


def _hang(done: Path) -> None:
    done.touch()
    time.sleep(3600)


class _Harm:
    """number: None for a call that never ends."""

    def __init__(self, done: Path, *, rank: int, number: signal.Signals | None) -> None:
        self._done, self._rank, self._number = done, rank, number

    def now(self) -> None:
        """Send the signal: to this process, or to its first child that is a rank, if it has one."""
        process = os.getpid() if self._rank == 0 else _child()
        if self._number is None:
            _hang(self._done)
        elif process:
            self._done.touch()
            os.kill(process, self._number)

    def when_there(self) -> None:
        """Send it as soon as a rank has been started."""

        def wait() -> None:
            while not _child():
                time.sleep(0.01)
            self.now()

        threading.Thread(target=wait, daemon=True).start()


def _child() -> int | None:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            is_ours = int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid()
            if is_ours and b"framefleet.plugins.placement.rank" in stat.with_name("cmdline").read_bytes():
                return int(stat.parent.name)
        except OSError:
            continue
    return None
