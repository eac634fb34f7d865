"""A recipe that harms a rank of its worker, once for each row that says so: `tests.rank_faults:faulty`."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import framefleet
from framefleet import Request
from framefleet.pipeline.recipes.catalog import generate

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@framefleet.recipe(batched=True)
def faulty(pipe: Any, request: Request, *, faults: str = "", fault: str = "") -> Any:
    """Do what `fault` says, as "1 kill step", unless a file in the folder `faults` says that it was done."""
    done = Path(faults, fault.replace(" ", "-"))
    if not fault or done.exists():
        return generate(pipe, request)
    rank, way, stage = fault.split()

    def harm() -> None:
        """Send the signal: to this process, or to its first child that is a rank, if it has one."""
        if process := os.getpid() if rank == "0" else _child():
            done.touch()
            os.kill(process, _SIGNALS[way])

    if stage == "encode":
        harm()
        return generate(pipe, request)
    last = 0 if stage == "step" else request.arguments["num_inference_steps"] - 1

    def at_step_end(_pipe: Any, index: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index == last:
            harm()
        return tensors

    arguments = {**request.arguments, "callback_on_step_end": at_step_end}
    return generate(pipe, dataclasses.replace(request, arguments=arguments))


def _child() -> int | None:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            is_ours = int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid()
            if is_ours and b"framefleet.plugins.placement.rank" in stat.with_name("cmdline").read_bytes():
                return int(stat.parent.name)
        except OSError:
            continue
    return None
