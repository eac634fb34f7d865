"""The largest row of a job, rehearsed on a GPU before the first row: encoded, one step, decoded, thrown away.

What it held says how many rows a forward has memory for, and a shape that does not fit is known before a row
of it was denoised. The call is a plain one, which leaves everything as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch

from framefleet.pipeline.errors import OutOfMemory
from framefleet.pipeline.guards.redaction import public_message
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.hooks.tree import flatten
from framefleet.pipeline.memory import free_memory, is_out_of_memory, on_device, room_bytes
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.render.findings_storage import Found, Places, RowMemory, memory_name
from framefleet.pipeline.render.fused.batcher import RowTask
from framefleet.pipeline.render.fused.calls import Call
from framefleet.pipeline.render.row_queue import RenderRow, failure_of
from framefleet.pipeline.request import Request, one_step
from framefleet.pipeline.rows.identity import input_shape

log = logging.getLogger(__name__)


class Rehearsal:
    """Rehearsals of one model. render: makes the plain call of a row."""

    def __init__(self, model: Model, places: Places | None, render: Callable[[RenderRow], RowTask]) -> None:
        self._model, self._places, self._render = model, places, render
        self._device: str = model.environment["device"]
        self._denoisers = model.denoisers()
        self._memory: RowMemory | None = None
        self._too_large: str | None = None  # the shape that did not fit

    def make(self, row: RenderRow) -> None:
        """Measure what a row of one step takes here, unless that is known."""
        environment = self._model.environment
        machine = f"{environment['gpu']}, torch {environment['torch']}"
        name = memory_name(self._model.digest, self._model.settings, row.request)
        findings = (self._places.read(name) if self._places else None) or Found()
        own = next((memory for memory in findings.memory if memory.machine == machine), None)
        if own is None or own.peak_bytes - own.held_bytes > self._free_bytes():
            with on_device(self._device):
                own = self._measured(row, machine)
            if own and self._places:
                self._places.keep(name, Found(memory=[own]))
        self._memory = own

    def refusal(self, request: Request) -> OutOfMemory | None:
        """Return the error of a request whose shape did not fit."""
        if not self._too_large or input_shape(one_step(request)) != self._too_large:
            return None
        return OutOfMemory("a rehearsal of its shape, with one step, ran out of memory here")

    def num_fitting(self, call: Call | None) -> int | None:
        """Return how many rows a forward like this, or the largest row's, has memory for, if known."""
        memory = self._memory
        if memory is None or not memory.step_bytes or (call and call.module not in self._denoisers):
            return None
        share = _num_values(call.leaves) / memory.step_values if call else 1.0
        return max(1, int(self._free_bytes() / max(1.0, memory.step_bytes * share)))

    def _free_bytes(self) -> int:
        return room_bytes(self._device) - torch.cuda.memory_allocated(self._device)

    def _measured(self, row: RenderRow, machine: str) -> RowMemory | None:
        at_rest = peak = torch.cuda.memory_allocated(self._device)
        step, values = 0, 1

        def measure(name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            nonlocal peak, step, values
            peak = max(peak, torch.cuda.max_memory_allocated(self._device))
            torch.cuda.reset_peak_memory_stats(self._device)
            before = torch.cuda.memory_allocated(self._device)
            output = forward(*args, **kwargs)
            if (took := torch.cuda.max_memory_allocated(self._device) - before) > step:
                step, values = took, max(1, _num_values(flatten((args, kwargs))[0]))
            return output

        torch.cuda.reset_peak_memory_stats(self._device)
        with intercept(self._denoisers, measure):
            task = self._render(row)
        peak = max(peak, torch.cuda.max_memory_allocated(self._device))
        error = failure_of(task.error, row).error if task.error else None
        free_memory()
        torch.cuda.reset_peak_memory_stats(self._device)  # of rows alone, from here on
        if error is None:
            if self._model.settings.options.offload:
                step = 0  # weights come and go in it
            return RowMemory(
                machine=machine, peak_bytes=peak, held_bytes=at_rest, step_bytes=step, step_values=values
            )
        if is_out_of_memory(error):
            self._too_large = input_shape(row.request)
            log.warning(
                "the largest row does not fit in %.1f GB here: one step or its decoding ran out of memory; "
                "`framefleet plan` names options with which it does",
                room_bytes(self._device) / 1e9,
            )
        else:  # some pipelines take no single step; what else is wrong a row will say
            log.info("the largest row cannot be rehearsed: %s", public_message(error))
        return None


def _num_values(leaves: Iterable[Any]) -> int:
    return sum(leaf.numel() for leaf in leaves if isinstance(leaf, torch.Tensor))
