"""A dry run of a large shape on an empty GPU: encode, one step, decode. What does not fit shows in seconds.

Without it a worker denoises a row for minutes before its decoder runs out of memory. Shapes that fit are
remembered on this machine; one that does not is tried again by the next process, which may have more memory.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from pydantic import TypeAdapter

from framefleet.pipeline.errors import OutOfMemory
from framefleet.pipeline.memory import free_memory, is_out_of_memory, peak_memory_bytes, room_bytes
from framefleet.pipeline.model.kept import kept
from framefleet.pipeline.model.specs.native_size import asked_shape, num_values
from framefleet.pipeline.request import Request

log = logging.getLogger(__name__)


class Rehearsal:
    """place: all that decides how much memory a shape takes, as one text. run: makes a plain call."""

    def __init__(
        self, device: str, place: Callable[[], str], run: Callable[[Request], Exception | None]
    ) -> None:
        self._device, self._place, self._run = device, place, run
        self._too_large = math.inf  # values of a clip

    def __call__(self, request: Request) -> None:
        """Find out whether rows as large as this one fit here. On a CPU nothing is done."""
        short = _of_one_step(request) if self._device.startswith("cuda") else None
        if short is None:
            return
        shape, has_gb = asked_shape(request.arguments), room_bytes(self._device) / 1e9
        try:
            place = [self._place(), shape, int(has_gb)]
            peak = _measured(self._device, place, lambda: self._run(short))
        except Exception as error:
            if not is_out_of_memory(error):  # one step may be too few for a pipeline: its rows will show
                log.info("the rehearsal of %s says nothing: %s", shape, error)
                return
            self._too_large = num_values(request.arguments)
            log.warning(
                "rows of %s do not fit in %.1f GB here: decoding or one step ran out of memory; "
                "`framefleet plan --gpu-memory %.0f` names options with which they do",
                *(shape, has_gb, has_gb),
            )
        else:
            log.info("a row of %s takes %.1f of %.1f GB", shape, peak / 1e9, has_gb)
        free_memory()

    def refusal(self, request: Request) -> OutOfMemory | None:
        """Return the error of a row that is as large as what did not fit."""
        if num_values(request.arguments) < self._too_large:
            return None
        return OutOfMemory("decoding or one step ran out of memory in a rehearsal of such a row")


@kept(TypeAdapter(int), decided_by=lambda device, place, run: [device, place])
def _measured(device: str, place: list[Any], run: Callable[[], Exception | None]) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    if error := run():
        raise error
    return peak_memory_bytes(device)


def _of_one_step(request: Request) -> Request | None:
    """Return the same row with the fewest steps; None where its steps are not a number of it."""
    if not isinstance(request.arguments.get("num_inference_steps"), int):
        return None
    strength = request.arguments.get("strength")
    steps = math.ceil(1 / strength) if isinstance(strength, float) and 0 < strength < 1 else 1
    return replace(request, arguments={**request.arguments, "num_inference_steps": steps})
