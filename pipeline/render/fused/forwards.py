"""Run parked calls that may share a forward, in sizes that pay and, in exact mode, change no bit."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from framefleet.pipeline.hooks.adapters import working_on
from framefleet.pipeline.memory import free_memory, is_out_of_memory
from framefleet.pipeline.model.options.attention import Attention
from framefleet.pipeline.model.options.regions import has_compiled
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.pipeline.render.fused.calls import Call, adapters_of
from framefleet.pipeline.render.fused.exact import are_close, probe
from framefleet.pipeline.render.fused.kept_state import StateWatch
from framefleet.pipeline.render.fused.pins import Plan, run_fused
from framefleet.pipeline.render.fused.sizes import Sizes

log = logging.getLogger(__name__)

# A forward shorter than this is timed twice: the first one of a size may also prepare kernels.
SHORT_S = 0.1


@dataclass(frozen=True, slots=True)
class Result:
    """What one call returned or raised, and how many rows its forward took."""

    value: Any
    error: Exception | None
    rows: int


class Forwards:
    """Forwards of some denoisers. Remembers, by shape, which sizes pay and what they pin.

    attention: the backend, which is replaced when it refuses a call; then AttentionChanged is raised.
    watch: sees forwards of single calls, which come before all others.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        batching: Batching,
        attention: Attention | None = None,
        watch: StateWatch | None = None,
    ) -> None:
        self.modules = modules
        self._watch = watch or StateWatch()
        self._batching = batching
        self._attention = attention
        self._is_compiled = any(map(has_compiled, modules.values()))
        self._sizes: dict[Hashable, Sizes] = {}
        self._plans: dict[Hashable, Plan | None] = {}

    def run(self, calls: Sequence[Call]) -> list[Result]:
        """Run calls of equal signature; results in their order. Raises nothing that a row caused."""
        results: list[Result] = []
        while waiting := len(calls) - len(results):
            # A call that found no company leaves nothing behind: its shape may hold objects of one row.
            size = self._sizes_of(calls[0]).next(waiting) if calls[0].batch and waiting > 1 else 1
            results += self._run_chunk(calls[len(results) : len(results) + size])
        return results

    def reach(self, calls: Sequence[Call]) -> int:
        """The most rows that the next forward of these may take: what pays, or what is worth trying.

        Without any call, that of a shape not seen yet.
        """
        if not calls:
            return self._new_sizes().next(self._batching.max_rows)
        sizes = [self._sizes.get(call.shape) or self._new_sizes() for call in calls if call.batch]
        return max((known.next(self._batching.max_rows) for known in sizes), default=1)

    def _sizes_of(self, call: Call) -> Sizes:
        return self._sizes.setdefault(call.shape, self._new_sizes())

    def _new_sizes(self) -> Sizes:
        return Sizes(self._batching.max_rows, min_gain=self._batching.min_gain)

    def _run_chunk(self, calls: Sequence[Call]) -> list[Result]:
        size = len(calls)
        if sizes := self._sizes.get(calls[0].shape):
            sizes.count_forward()
        if size == 1:
            return [self._run_one(calls[0])]
        try:
            if (kind := _kind(calls)) in self._plans:
                outputs = self._run_fused(calls, self._plans[kind])
                return [Result(output, None, size) for output in outputs]
            return [Result(output, None, 1) for output in self._try_size(calls)]
        except Exception as error:  # whatever a model raises; each row alone shows whose it is
            is_full = is_out_of_memory(error)
        if not is_full:
            return [self._run_one(call) for call in calls]
        self._halve(calls)  # after the handler: until then the exception holds the forward's tensors
        return self.run(calls)

    def _halve(self, calls: Sequence[Call]) -> None:
        log.warning("%s: out of memory at %d rows; halving", calls[0].module, len(calls))
        self._sizes_of(calls[0]).halve(len(calls))
        free_memory()

    def _run_one(self, call: Call) -> Result:
        try:
            with self._watching(call):
                return Result(self._run_alone(call), None, 1)
        except Exception as error:  # belongs to this row: handed to its recipe
            if self._attention:
                self._attention.replace(partial(self._run_alone, call), error)
            return Result(None, error, 1)

    def _watching(self, call: Call) -> AbstractContextManager[None]:
        return self._watch.around(call.module, self.modules[call.module], call.shape)

    def _run_alone(self, call: Call) -> Any:
        args, kwargs = call.arguments()
        with working_on(adapters_of([call])), call.draws.turn():
            return self.modules[call.module].forward(*args, **kwargs)

    def _run_fused(self, calls: Sequence[Call], plan: Plan | None) -> list[Any]:
        module = self.modules[calls[0].module]
        return run_fused(module, module.forward, calls, plan)

    def _try_size(self, calls: Sequence[Call]) -> list[Any]:
        """Run the calls one by one for their results, then learn whether this size pays and is exact."""
        sizes, size = self._sizes_of(calls[0]), len(calls)
        timed = []
        for call in calls:
            with self._watching(call):
                timed.append(_timed(partial(self._run_alone, call)))
        outputs = [output for output, _ in timed]
        sizes.accept(1, seconds=min(seconds for _, seconds in timed))
        is_full = False
        try:
            self._learn(sizes, calls, outputs)
        except Exception as error:  # a model may not take such a batch at all; its rows are done by now
            is_full = is_out_of_memory(error)
            log.info("%s cannot run %d rows at once: %s", calls[0].module, size, error)
            sizes.refuse(size, is_final=not is_full)
        if is_full:
            self._halve(calls)
        return outputs

    def _learn(self, sizes: Sizes, calls: Sequence[Call], outputs: Sequence[Any]) -> None:
        """Accept or refuse this many rows at once."""
        size, call, module = len(calls), calls[0], self.modules[calls[0].module]
        plan, is_exact = None, self._batching.mode == "exact"
        if self._is_compiled:  # the first forward of a size compiles it
            self._run_fused(calls, None)
        fused, seconds = _best(lambda: self._run_fused(calls, None))
        is_sound = is_exact or are_close(fused, outputs)
        if is_exact and sizes.pays(size, seconds=seconds):
            plan = probe(module, module.forward, calls, outputs)
            is_sound = plan is not None
            seconds = _best(lambda: self._run_fused(calls, plan))[1] if is_sound else seconds
        if is_sound and sizes.pays(size, seconds=seconds):
            self._plans[_kind(calls)] = plan
            sizes.accept(size, seconds=seconds)
            return
        reason = "do not pay" if is_sound else "cannot be made exact" if is_exact else "give other results"
        log.info("%s: %d rows at once %s", call.module, size, reason)
        sizes.refuse(size, is_final=not is_sound)


def _kind(calls: Sequence[Call]) -> Hashable:
    """What calls must have in common with others to be run by their plan.

    Rows of different LoRAs are proven for themselves: among rows of one LoRA nobody sees whose is whose.
    """
    return calls[0].shape, len(calls), len(set(adapters_of(calls))) > 1


def _best(function: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and the lesser of two timings, or the only one of a long forward."""
    result, seconds = _timed(function)
    return result, min(seconds, _timed(function)[1]) if seconds < SHORT_S else seconds


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    # On a CPU the thread's own time: what other processes take away says nothing about the forward.
    clock = time.perf_counter if torch.cuda.is_available() else time.thread_time
    _synchronize()
    started = clock()
    result = function()
    _synchronize()
    return result, clock() - started


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
