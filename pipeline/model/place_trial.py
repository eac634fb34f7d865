"""Try out whether this machine can compute with a device and dtypes, before it gets a row.

Some processors advertise instructions but crash on them (AMX on a virtual machine: SIGILL), so a child
process computes first. The result is cached on this machine. Does not import torch.
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
# The largest instruction set without AMX and fp16, which virtual machines get wrong.
SOUND_ISA = "AVX512_CORE_BF16"
_MAX_WAIT_S = 120.0  # for another worker's trial, which takes a fifth of this
_REFUSALS = ("RuntimeError", "torch.AcceleratorError")  # not OutOfMemoryError: others may fill a GPU


def prove_place(device: str, dtypes: Collection[str]) -> None:
    """Set what this machine needs for these dtypes. Raises FleetError if it cannot compute in them.

    fp32 on a CPU needs no trial: it uses the same old instructions as importing the libraries.
    """
    wanted = sorted({*dtypes} - ({"fp32"} if device == "cpu" else set()))
    if not wanted:
        return
    try:
        with one_fetcher("the trial of this machine", max_wait_s=_MAX_WAIT_S):  # one for all workers
            isa = needed_isa(device, wanted)
    except ModelError:  # without a cache folder
        isa = needed_isa(device, wanted)
    if isa:
        os.environ[MAX_CPU_ISA] = isa
        log.warning(
            "%s crashes on %s, but not with %s=%s, which is now set. If this process still crashes, it has "
            "computed something before: set the variable before Python starts",
            *(platform.node(), ", ".join(wanted), MAX_CPU_ISA, isa),
        )


def _place(device: str, dtypes: list[str]) -> list[Any]:
    """Return what decides the result of a trial, besides installed packages."""
    settings = {name: value for name, value in os.environ.items() if name.startswith(("DNNL_", "ONEDNN_"))}
    processor = lines_beginning("/proc/cpuinfo", ("model name", "flags", "Features"))
    return [device, dtypes, platform.node(), processor, settings, str(PROGRAM)]


def try_out(device: str, dtypes: list[str]) -> str:
    """Return the instruction set with which a child survives; "" for all. Raises FleetError if it dies."""
    if (reason := _death(device, dtypes)) is None:
        return ""
    if device == "cpu" and reason == "SIGILL":
        if _death(device, dtypes, isa=SOUND_ISA) is None:
            return SOUND_ISA
        reason += f", also with {MAX_CPU_ISA}={SOUND_ISA}"
    raise FleetError(
        f"{platform.node()} cannot compute in {', '.join(dtypes)} on {device}: a trial ended with {reason}",
        "leave the machine out, or set `model: {dtype: fp32}`; the host of a virtual machine can hide "
        "instructions that do not work, and torch must be built for the GPU",
    )


# Cached on this machine.
needed_isa = disk_cached(TypeAdapter(str), decided_by=_place)(try_out)


def _death(device: str, dtypes: list[str], *, isa: str | None = None) -> str | None:
    """Return how a computing child died, or why torch refused; None if it succeeded."""
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
