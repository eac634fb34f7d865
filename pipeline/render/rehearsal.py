"""The largest row of a job, rehearsed on a GPU before the first row: encoded, one step, decoded, thrown away.

What it held there says how many rows a forward has memory for. A shape that does not fit is known before a
row of it was denoised. The call is a plain one, which leaves everything as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch

from framefleet.pipeline.errors import OutOfMemory
from framefleet.pipeline.guards.public import public_text
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.hooks.tree import flatten
from framefleet.pipeline.memory import free_memory, is_out_of_memory, on_device, room_bytes
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.render.fused.calls import Call
from framefleet.pipeline.render.probe.probe import input_shape
from framefleet.pipeline.render.remembered.found import Found, RowMemory
from framefleet.pipeline.render.remembered.places import Places
from framefleet.pipeline.render.remembered.rehearsed import memory_name, rehearsed
from framefleet.pipeline.request import Request

log = logging.getLogger(__name__)


class Rehearsal:
    """Of one model. render: makes the plain call of a request, and returns why that failed, if it did."""

    def __init__(
        self, model: Model, places: Places | None, render: Callable[[Request], Exception | None]
    ) -> None:
        self._model, self._places, self._render = model, places, render
        self._device: str = model.environment["device"]
        self._memory: RowMemory | None = None
        self._too_large: str | None = None  # the shape that did not fit
        self.num_made = 0

    def make(self, request: Request) -> None:
        """Find out what such a row takes here, unless that is known."""
        request, environment = rehearsed(request), self._model.environment
        machine = f"{environment['gpu']}, torch {environment['torch']}"
        name = memory_name(self._model.digest, self._model.settings, request)
        known = (self._places.read(name) if self._places else None) or Found()
        found = next((memory for memory in known.memory if memory.machine == machine), None)
        if found is None or found.peak_bytes - found.held_bytes > self._free_bytes():
            with on_device(self._device):
                found = self._measured(request, machine)
            if found and self._places:
                self._places.keep(name, Found(memory=[found]))
        self._memory = found

    def check(self, request: Request) -> None:
        """Raise OutOfMemory for a request whose shape did not fit."""
        if self._too_large and input_shape(rehearsed(request)) == self._too_large:
            raise OutOfMemory("a rehearsal of its shape, with one step, ran out of memory here")

    def num_fitting(self, call: Call | None) -> int | None:
        """Return how many rows a forward like this has memory for; None where that is not known.

        call: one row's, or None for one of the largest row's.
        """
        memory = self._memory
        if memory is None or not memory.step_bytes:
            return None
        share = _num_values(call.leaves) / memory.step_values if call else 1.0
        return max(1, int(self._free_bytes() / max(1.0, memory.step_bytes * share)))

    def _free_bytes(self) -> int:
        return room_bytes(self._device) - torch.cuda.memory_allocated(self._device)

    def _measured(self, request: Request, machine: str) -> RowMemory | None:
        free_memory()
        self.num_made += 1
        held = torch.cuda.memory_allocated(self._device)
        peak, step, values = held, 0, 1

        def measure(name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            nonlocal peak, step, values
            peak = max(peak, torch.cuda.max_memory_allocated(self._device))
            torch.cuda.reset_peak_memory_stats(self._device)
            before = torch.cuda.memory_allocated(self._device)
            output = forward(*args, **kwargs)
            took = torch.cuda.max_memory_allocated(self._device) - before
            if took > step:
                step, values = took, max(1, _num_values(flatten((args, kwargs))[0]))
            return output

        torch.cuda.reset_peak_memory_stats(self._device)
        with intercept(self._model.denoisers(), measure):
            error = self._render(request)
        peak = max(peak, torch.cuda.max_memory_allocated(self._device))
        free_memory()
        torch.cuda.reset_peak_memory_stats(self._device)  # of rows alone, from here on
        if error is None:
            log.info("a row of the largest shape holds %.1f GB at most, as its rehearsal says", peak / 1e9)
            is_step_alone = not self._model.settings.options.offload  # else weights come and go in it
            return RowMemory(
                machine=machine,
                peak_bytes=peak,
                held_bytes=held,
                step_bytes=step if is_step_alone else 0,
                step_values=values,
            )
        if is_out_of_memory(error):
            self._too_large = input_shape(request)
            log.warning("a row of the largest shape does not fit here: its rehearsal ran out of memory")
        else:  # some pipelines take no single step; what else is wrong a row will say
            log.info("the largest row cannot be rehearsed: %s", public_text(str(error)))
        return None


def _num_values(leaves: Iterable[Any]) -> int:
    return sum(leaf.numel() for leaf in leaves if isinstance(leaf, torch.Tensor))
