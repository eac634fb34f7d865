"""In: a device and dtypes. Out: this machine computes in them, or is refused before it gets a row.

Some processors advertise instructions and crash on them (AMX on a virtual machine: SIGILL), so a child
computes first. What was found is kept on this machine. Imports no torch.
"""

from __future__ import annotations

import logging
import os
import platform
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from framefleet.pipeline.errors import FleetError, ModelError
from framefleet.pipeline.guards.own_python import python
from framefleet.pipeline.guards.sandbox import ending
from framefleet.pipeline.model.class_cache import disk_cached, one_fetcher
from framefleet.pipeline.model.environment import MAX_CPU_ISA, lines_beginning

log = logging.getLogger(__name__)

PROGRAM = Path(__file__).with_name("place_trial_process.py")
# The most that processors have without AMX and fp16, which is what virtual machines get wrong.
SOUND_ISA = "AVX512_CORE_BF16"
_MAX_WAIT_S = 120.0  # for that of another worker, which takes a fifth of it
_REFUSALS = ("RuntimeError", "torch.AcceleratorError")  # not OutOfMemoryError: others may fill a GPU


def prove_place(device: str, dtypes: Collection[str]) -> None:
    """Set what this machine needs for these dtypes. Raises FleetError for one that cannot compute in them.

    On a CPU fp32 needs no trial: its instructions are as old as those that libraries start with.
    """
    wanted = sorted({*dtypes} - ({"fp32"} if device == "cpu" else set()))
    if not wanted:
        return
    try:
        with one_fetcher("the trial of this machine", max_wait_s=_MAX_WAIT_S):  # not one for each worker
            isa = needed_isa(device, wanted)
    except ModelError:  # there is no cache folder
        isa = needed_isa(device, wanted)
    if isa:
        os.environ[MAX_CPU_ISA] = isa
        log.warning(
            "%s crashes on %s, but not with %s=%s, which is now set. If this process still crashes, it had "
            "computed before: set it before Python starts",
            *(platform.node(), ", ".join(wanted), MAX_CPU_ISA, isa),
        )


def _place(device: str, dtypes: list[str]) -> list[Any]:
    """Return what decides a trial, in addition to installed packages."""
    settings = {name: value for name, value in os.environ.items() if name.startswith(("DNNL_", "ONEDNN_"))}
    processor = lines_beginning("/proc/cpuinfo", ("model name", "flags", "Features"))
    return [device, dtypes, platform.node(), processor, settings, str(PROGRAM)]


def try_out(device: str, dtypes: list[str]) -> str:
    """Return the instructions that a child survives with; "" for all. Raises FleetError where it dies."""
    if (reason := _death(device, dtypes)) is None:
        return ""
    if device == "cpu" and reason == "SIGILL":
        if _death(device, dtypes, isa=SOUND_ISA) is None:
            return SOUND_ISA
        reason += f", also with {MAX_CPU_ISA}={SOUND_ISA}"
    raise FleetError(
        f"{platform.node()} cannot compute in {', '.join(dtypes)} on {device}: a trial ended with {reason}",
        "take the machine out, or set `model: {dtype: fp32}`; a virtual machine's host can hide instructions "
        "that it does not run, and torch must be built for the GPU",
    )


# What it found before on this machine counts.
needed_isa = disk_cached(TypeAdapter(str), decided_by=_place)(try_out)


def _death(device: str, dtypes: list[str], *, isa: str | None = None) -> str | None:
    """Return what a child died of that computes, or why torch refused; None if it did."""
    ended = subprocess.run(
        python(str(PROGRAM), device, *dtypes),
        env=os.environ | ({MAX_CPU_ISA: isa} if isa else {}),
        capture_output=True,
        text=True,
    )
    if ended.returncode < 0:
        return ending(ended.returncode)
    message = ended.stderr.strip().rpartition("\n")[2]
    return message if message.startswith(_REFUSALS) and "not implemented" not in message else None
