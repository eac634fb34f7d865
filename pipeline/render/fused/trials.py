"""Calls whose own outputs are known, in; which sizes of forward pay and change no bit, out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import torch

from framefleet.pipeline.memory import free_memory, is_out_of_memory, whole_workspaces
from framefleet.pipeline.render.findings import Findings
from framefleet.pipeline.render.findings_storage import Worth
from framefleet.pipeline.render.fused.batching import TRIAL_COST, Batching, Sizes
from framefleet.pipeline.render.fused.calls import Call, Methods, adapters_of, are_unlike
from framefleet.pipeline.render.fused.compatibility import Company
from framefleet.pipeline.render.fused.concatenation import layouts
from framefleet.pipeline.render.fused.exact import are_close, are_equal, is_joined_inside, masks_matter, probe
from framefleet.pipeline.render.fused.pins import Kind, Plan, run_fused

log = logging.getLogger(__name__)
# A forward shorter than this that seems not to pay is timed again: the first one of a size may also prepare
# kernels. Then in turns with the size that it has to beat, so often at most: what that one took in a calm
# moment says nothing about a busy one. A longer forward is timed as often as this time allows.
SHORT_S = 0.1
TURNS = 3
TURNS_S = 1.0
# What would not pay in this share of its time, next to a smaller size in the same moment, is not timed again.
HOPELESS = 0.8


class Trials:
    """Remembers, by shape, which sizes pay and what they pin."""

    def __init__(
        self, methods: Methods, batching: Batching, company: Company, findings: Findings, *, is_compiled: bool
    ) -> None:
        self._methods, self._batching, self._company = methods, batching, company
        self._findings = findings
        self._is_compiled = is_compiled  # denoisers are, so that each weight of a LoRA is a graph
        self._sizes: dict[Hashable, Sizes] = {}  # by look, as the next
        self._plans: dict[Kind, Plan] = {}

    def reach(self, calls: Sequence[Call]) -> int:
        """The most rows that the next forward of these, or of a new shape, may take: what pays, or may."""
        if not calls:
            return self._new_sizes().next(self._batching.max_rows)
        sizes = [self._known_sizes(call) or self._new_sizes(call) for call in calls if call.batch]
        return max((size.next(self._batching.max_rows) for size in sizes), default=1)

    def count_forward(self, call: Call) -> None:
        """Count a forward: what did not pay may be tried again after some."""
        if sizes := self._sizes.get(self._company.look(call)):
            sizes.count_forward()

    def plan(self, calls: Sequence[Call]) -> Plan | None:
        """Return how to run these calls at once, if that is known to pay and to change no bit."""
        plan = self._plans.get(self._kind(calls))
        return plan if plan and self._company.is_proven(calls, plan.pins) else None

    def run(self, calls: Sequence[Call], plan: Plan) -> list[Any]:
        """Run them at once; return each row's output and what its holders hold then."""
        with whole_workspaces():
            return run_fused(self._methods[calls[0].module], calls, plan)

    def halve(self, calls: Sequence[Call]) -> None:
        log.warning("%s: out of memory at batches of %d; halving", calls[0].module, len(calls))
        self.sizes_of(calls[0]).halve(len(calls))
        free_memory()

    def learn(self, calls: Sequence[Call], outputs: Sequence[Any], *, alone_s: float) -> None:
        """Learn whether this many rows at once pay and are exact.

        outputs: of one-row forwards, see `with_holders`; the quickest took `alone_s`.
        """
        sizes, size = self.sizes_of(calls[0]), len(calls)
        sizes.accept(1, seconds=alone_s)
        is_full = False
        try:
            self._learn(sizes, calls, outputs)
        except Exception as error:  # a model may not take such a batch at all; its rows are done by now
            is_full = is_out_of_memory(error)
            log.info("%s cannot run batches of %d: %s", calls[0].module, size, error)
            if not is_full and not self._company.part_ways(calls):
                self._settle(calls, "inexact", seconds=size * alone_s)
        if is_full:
            sizes.refuse(size, is_final=False)
            self.halve(calls)

    def sizes_of(self, call: Call) -> Sizes:
        sizes = self._known_sizes(call)
        return sizes or self._sizes.setdefault(self._company.look(call), self._new_sizes(call))

    def _known_sizes(self, call: Call) -> Sizes | None:
        look = self._company.look(call)
        if look not in self._sizes and self._findings.tell(look, sizes := self._new_sizes(call)):
            self._sizes[look] = sizes
        return self._sizes.get(look)

    def _new_sizes(self, call: Call | None = None) -> Sizes:
        most = min(filter(None, (self._batching.max_rows, self._findings.num_fitting(call))))
        min_gain = self._batching.min_gain
        has_to_pay = min_gain > 1  # else sizes are used that lose time: no trial has to be worth its own
        return Sizes(
            most,
            min_gain=min_gain,
            trial_cost=TRIAL_COST[self._batching.mode] if has_to_pay else (0.0, 0.0),
            is_rare=call is not None and self._methods[call.module].seconds != "denoise_s",
        )

    def _learn(self, sizes: Sizes, calls: Sequence[Call], outputs: Sequence[Any]) -> None:
        if earlier := self._plans.get(self._kind(calls)):
            self._judge(calls, outputs, earlier)
            return
        if self._recall(calls, outputs):
            return
        size, call, method = len(calls), calls[0], self._methods[calls[0].module]
        is_exact = self._batching.mode == "exact"
        plan, seconds, is_sound = self._joined(calls, outputs)
        if not is_sound and self._company.refute(call):
            return
        if is_sound and not is_exact and sizes.is_tried(size):  # paid before: a first forward is no measure
            self._plans[self._kind(calls)] = plan
            self._company.prove(calls, plan.pins)
            return
        seconds = self._compared(sizes, calls, plan, seconds)
        # Where rows agree not even as far as rounding allows, fast mode does what exact mode does.
        is_proven = is_exact or not is_sound
        is_sound = True
        if is_proven and sizes.pays(size, seconds=seconds):
            if sizes.is_new(size) and not sizes.hope_for(size, seconds=seconds):
                return
            if self._company.share_by_masks(call, is_needed=lambda: masks_matter(method, call)):
                return
            exact = probe(method, calls, outputs, plan.axes)
            is_sound = exact is not None
            plan = exact or plan
            if is_sound:
                seconds = self._compared(sizes, calls, plan, clocked(lambda: self.run(calls, plan))[1])
        if is_sound and sizes.pays(size, seconds=seconds):
            self._plans[self._kind(calls)] = plan
            self._company.prove(calls, plan.pins)
            self._settle(calls, "pays", seconds=seconds, plan=plan)
            return
        if not is_sound and self._company.part_ways(calls):
            return
        reason = "do not pay" if is_sound else "cannot be made exact" if is_exact else "give other results"
        log.info("%s: batches of %d %s", call.module, size, reason)
        self._settle(calls, "slow" if is_sound else "inexact", seconds=seconds)

    def _settle(
        self, calls: Sequence[Call], verdict: Worth, *, seconds: float, plan: Plan | None = None
    ) -> None:
        """Use this many rows from now on, or do not, here and in processes to come."""
        sizes, size = self.sizes_of(calls[0]), len(calls)
        if verdict == "pays":
            sizes.accept(size, seconds=seconds)
        else:
            sizes.refuse(size, is_final=verdict == "inexact")
        pins = plan.pins if plan and self._batching.mode == "exact" else None
        self._findings.note(self._kind(calls), verdict, seconds=seconds, pins=pins)

    def _recall(self, calls: Sequence[Call], outputs: Sequence[Any]) -> bool:
        """Use the pins of another process, once they are proven on these rows; return whether they are."""
        kind, call, method = self._kind(calls), calls[0], self._methods[calls[0].module]
        pins = self._findings.pins(kind)
        if pins is None or not self.sizes_of(call).is_tried(kind.rows):
            return False
        plan = None
        try:
            plan = probe(method, calls, outputs, kind.axes, suspects=pins)
        except Exception as error:  # of a module that does not go row by row; a search asks only few
            if is_out_of_memory(error):
                raise
        if plan is None or not pins.issuperset(plan.pins):
            log.warning(
                "%s: the stored result for batches of %d failed its check; testing again",
                call.module,
                kind.rows,
            )
        if plan is None:
            return False
        log.info("%s: batches of %d, pinned modules: %d (stored result)", call.module, kind.rows, len(pins))
        self._plans[kind] = plan
        self._company.join_by(call, kind.axes)
        self._company.prove(calls, plan.pins)
        self._findings.confirm(kind, plan.pins)
        return True

    def _compared(self, sizes: Sizes, calls: Sequence[Call], plan: Plan, seconds: float) -> float:
        """Return what these calls at once take, as it would have been when the smaller sizes were timed."""
        size = len(calls)
        smaller, known_s = sizes.best_below(size)
        few, many = calls[:smaller], partial(self.run, calls, plan)
        has_pins = smaller > 1 and not sizes.is_new(size)
        theirs = self._plans.get(self._kind(few)) if has_pins else Plan(plan.axes, {}, plan.output)
        if seconds < SHORT_S and not sizes.pays(size, seconds=seconds):
            seconds = min(seconds, clocked(many)[1])
        if theirs is None or seconds > TURNS_S:
            return seconds
        turns: list[tuple[float, float]] = []
        while len(turns) < min(TURNS, int(TURNS_S / seconds)) and not sizes.pays(size, seconds=seconds):
            turns.append((clocked(partial(self.run, few, theirs))[1], clocked(many)[1]))
            few_s, many_s = map(min, zip(*turns, strict=True))
            seconds = min(seconds, known_s * many_s / few_s)
            if not sizes.pays(size, seconds=HOPELESS * seconds):
                break
        return seconds

    def _joined(self, calls: Sequence[Call], outputs: Sequence[Any]) -> tuple[Plan, float, bool]:
        """Return how the calls are joined, what such a forward takes, and whether it gives their outputs."""
        like = layouts(outputs[0])
        outcome: tuple[Plan, float] | Exception | None = None
        for axes in self._company.ways(calls):
            plan = Plan(axes, {}, like)
            try:
                if self._is_compiled:  # the first forward of a size compiles it
                    self.run(calls, plan)
                fused, seconds = clocked(partial(self.run, calls, plan))
            except Exception as error:  # of a wrong way; without a right one it is raised
                if is_out_of_memory(error):
                    raise
                outcome = outcome or error
                continue
            if are_close(fused, outputs):
                self._company.join_by(calls[0], axes)
                return plan, seconds, True
            outcome = outcome or (plan, seconds)
        if isinstance(outcome, Exception):
            raise outcome
        assert outcome is not None
        return *outcome, False

    def _judge(self, calls: Sequence[Call], outputs: Sequence[Any], plan: Plan) -> None:
        """Let calls with lists of other shapes share a size that is proven, if they keep their bits too."""
        method, is_exact = self._methods[calls[0].module], self._batching.mode == "exact"
        agree = are_equal if is_exact else are_close
        does_hold = agree(self.run(calls, plan), outputs)
        if is_exact and does_hold and are_unlike(calls):
            does_hold = is_joined_inside(method, calls, plan)
        if does_hold:
            self._company.prove(calls, plan.pins)
        elif not self._company.part_ways(calls):
            self.sizes_of(calls[0]).refuse(len(calls), is_final=True)

    def _kind(self, calls: Sequence[Call]) -> Kind:
        look, axes = self._company.look(calls[0]), self._company.axes(calls[0])
        pairs = [set(adapters.in_force) for adapters in adapters_of(calls)]
        used = pairs[0].union(*pairs)
        if self._is_compiled:  # each weight is a graph, and all calls have equal ones
            names = frozenset(f"{name}:{weight}" for name, weight in used)
            return Kind(look, axes, len(calls), names, frozenset())
        differing = frozenset(name for name, _ in used - pairs[0].intersection(*pairs))
        return Kind(look, axes, len(calls), frozenset(name for name, _ in used), differing)


def clocked(function: Callable[[], Any]) -> tuple[Any, float]:
    started = now()
    result = function()
    return result, now() - started


def now() -> float:
    """Return the time in seconds, once the accelerator has done what was launched."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
        return time.perf_counter()
    return time.thread_time()  # what other processes take away says nothing about a forward
