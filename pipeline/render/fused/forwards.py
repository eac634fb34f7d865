"""Run parked calls that may share a forward, in sizes that pay and, in exact mode, change no bit."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from torch import nn

from framefleet.pipeline.hooks.adapters import working_on
from framefleet.pipeline.memory import free_memory, is_out_of_memory
from framefleet.pipeline.model.options.attention import Attention
from framefleet.pipeline.model.options.regions import has_compiled
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.pipeline.render.fused.calls import Call, Result, adapters_of, are_unlike, tensor_sizes
from framefleet.pipeline.render.fused.company import Company
from framefleet.pipeline.render.fused.exact import (
    are_close,
    are_equal,
    is_joined_inside,
    masks_matter,
    probe,
    traced,
)
from framefleet.pipeline.render.fused.joining import hand_back, layouts, with_holders
from framefleet.pipeline.render.fused.kept_state import StateWatch
from framefleet.pipeline.render.fused.kinds import Kind, by_loras, plan_kind
from framefleet.pipeline.render.fused.methods import Method, Methods
from framefleet.pipeline.render.fused.pins import Plan, run_fused
from framefleet.pipeline.render.fused.sizes import Sizes
from framefleet.pipeline.render.fused.timing import TURNS_S, best, clocked, in_turns
from framefleet.pipeline.render.remembered.findings import Findings
from framefleet.pipeline.render.remembered.found import Worth

log = logging.getLogger(__name__)


class Forwards:
    """Forwards of some denoisers. Remembers, by shape, which sizes pay and what they pin.

    attention: the backend, which is replaced when it refuses a call; then AttentionChanged is raised.
    watch: sees forwards of single calls, which come before all others. findings: what is known of sizes from
    other processes, and where this one's are kept. beside: what rows call beside denoisers and may share too.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        batching: Batching,
        attention: Attention | None = None,
        watch: StateWatch | None = None,
        findings: Findings | None = None,
        beside: Methods | None = None,
    ) -> None:
        self._denoisers = modules
        self.methods = {name: Method(module) for name, module in modules.items()} | dict(beside or {})
        self._findings = findings or Findings()
        self._watch = watch or StateWatch()
        self._batching = batching
        self._attention = attention
        self._is_compiled = any(map(has_compiled, modules.values()))
        self._company = Company()
        self._sizes: dict[Hashable, Sizes] = {}  # by look, as the next
        self._plans: dict[Kind, Plan] = {}

    def groups(self, calls: Sequence[Call]) -> list[list[int]]:
        """Return the places of the calls that may share a forward; if compiled, those of equal LoRAs."""
        groups = self._company.groups(calls)
        if not self._is_compiled:
            return groups
        return [apart for places in groups for apart in by_loras(calls, places)]

    def sizes(self, call: Call) -> Hashable | None:
        """What of a row's call tells how long its prompts are, where it does; see `tensor_sizes`."""
        return tensor_sizes(call, self._company.masks(call))

    def run(self, calls: Sequence[Call]) -> list[Result]:
        """Run calls of one group; results in their order. Raises nothing that a row caused."""
        results: list[Result] = []
        while waiting := len(calls) - len(results):
            # A call that found no company leaves nothing behind: its shape may hold objects of one row.
            is_alone = waiting == 1 or not calls[0].batch or self._company.look(calls[0]) is None
            size = 1 if is_alone else self._sizes_of(calls[0]).next(waiting)
            results += self._run_chunk(calls[len(results) : len(results) + size])
        return results

    def is_denoising(self, call: Call) -> bool:
        return call.module in self._denoisers

    def reach(self, calls: Sequence[Call]) -> int:
        """The most rows that the next forward of these may take: what pays, or what is worth trying.

        Without any call, that of a shape not seen yet.
        """
        if not calls:
            return self._new_sizes().next(self._batching.max_rows)
        sizes = [self._known_sizes(call) or self._new_sizes() for call in calls if call.batch]
        return max((known.next(self._batching.max_rows) for known in sizes), default=1)

    def _sizes_of(self, call: Call) -> Sizes:
        known = self._known_sizes(call)
        return known or self._sizes.setdefault(self._company.look(call), self._new_sizes())

    def _known_sizes(self, call: Call) -> Sizes | None:
        look = self._company.look(call)
        if look not in self._sizes and self._findings.tell(look, sizes := self._new_sizes()):
            self._sizes[look] = sizes
        return self._sizes.get(look)

    def _new_sizes(self) -> Sizes:
        return Sizes(self._batching.max_rows, min_gain=self._batching.min_gain)

    def _run_chunk(self, calls: Sequence[Call]) -> list[Result]:
        size = len(calls)
        if sizes := self._sizes.get(self._company.look(calls[0])):
            sizes.count_forward()
        if size == 1:
            return [self._run_one(calls[0])]
        try:
            plan = self._plans.get(self._kind(calls))
            if plan and self._company.is_proven(calls, plan.pins):
                return self._run_proven(calls, plan)
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
            if self._attention and self.is_denoising(call):
                self._attention.replace(partial(self._run_alone, call), error)
            return Result(None, error, 1)

    def _watching(self, call: Call) -> AbstractContextManager[None]:
        if not self.is_denoising(call):
            return nullcontext()
        return self._watch.around(call.module, self._denoisers[call.module], call.shape)

    def _run_alone(self, call: Call) -> Any:
        method = self.methods[call.module]
        args, kwargs = call.arguments()
        with working_on(adapters_of([call])), call.draws.turn():
            if self._company.look(call) is not None:
                return method.call(*args, **kwargs)
            inner, output = traced(method.network, method.call, args, kwargs)
        self._company.saw(call, inner)
        return output

    def _run_fused(self, calls: Sequence[Call], plan: Plan) -> list[Any]:
        method = self.methods[calls[0].module]
        return run_fused(method.network, method.call, calls, plan)

    def _run_proven(self, calls: Sequence[Call], plan: Plan) -> list[Result]:
        results = []
        for call, (output, held) in zip(calls, self._run_fused(calls, plan), strict=True):
            hand_back(call, held)
            results.append(Result(output, None, len(calls)))
        return results

    def _try_size(self, calls: Sequence[Call]) -> list[Any]:
        """Run the calls one by one for their results, then learn whether this size pays and is exact."""
        sizes, size = self._sizes_of(calls[0]), len(calls)
        alone = []
        for call in calls:
            with self._watching(call):
                alone.append(clocked(partial(self._run_alone, call)))
        outputs = [
            with_holders(output, *call.arguments()) for call, (output, _) in zip(calls, alone, strict=True)
        ]
        alone_s = min(seconds for _, seconds in alone)
        sizes.accept(1, seconds=alone_s)
        is_full = False
        try:
            self._learn(sizes, calls, outputs)
        except Exception as error:  # a model may not take such a batch at all; its rows are done by now
            is_full = is_out_of_memory(error)
            log.info("%s cannot run %d rows at once: %s", calls[0].module, size, error)
            if not is_full and not self._company.part_ways(calls):
                self._settle(calls, "inexact", seconds=size * alone_s)
        if is_full:
            sizes.refuse(size, is_final=False)
            self._halve(calls)
        return [output for output, _ in alone]

    def _learn(self, sizes: Sizes, calls: Sequence[Call], outputs: Sequence[Any]) -> None:
        """Accept or refuse this many rows at once.

        outputs: of one-row forwards, see `with_holders`.
        """
        if known := self._plans.get(self._kind(calls)):
            self._judge(calls, outputs, known)
            return
        if self._recall(calls, outputs):
            return
        size, call, method = len(calls), calls[0], self.methods[calls[0].module]
        is_exact = self._batching.mode == "exact"
        plan, seconds, is_sound = self._joined(calls, outputs)
        if not is_sound and self._company.refute(call):
            return
        is_sound |= is_exact
        seconds = self._compared(sizes, calls, plan, seconds)
        if is_exact and sizes.pays(size, seconds=seconds):
            if self._company.share_by_masks(
                call, is_needed=lambda: masks_matter(method.network, method.call, call)
            ):
                return
            exact = probe(method.network, method.call, calls, outputs, plan.axes)
            is_sound = exact is not None
            plan = exact or plan
            if is_sound:
                again = best(lambda: self._run_fused(calls, plan))[1]
                seconds = self._compared(sizes, calls, plan, again)
        if is_sound and sizes.pays(size, seconds=seconds):
            self._plans[self._kind(calls)] = plan
            self._company.prove(calls, plan.pins)
            self._settle(calls, "pays", seconds=seconds, plan=plan)
            return
        if not is_sound and self._company.part_ways(calls):
            return
        reason = "do not pay" if is_sound else "cannot be made exact" if is_exact else "give other results"
        log.info("%s: %d rows at once %s", call.module, size, reason)
        self._settle(calls, "slow" if is_sound else "inexact", seconds=seconds)

    def _settle(
        self, calls: Sequence[Call], verdict: Worth, *, seconds: float, plan: Plan | None = None
    ) -> None:
        """Use this many rows from now on, or do not, here and in processes to come."""
        sizes, size = self._sizes_of(calls[0]), len(calls)
        if verdict == "pays":
            sizes.accept(size, seconds=seconds)
        else:
            sizes.refuse(size, is_final=verdict == "inexact")
        pins = plan.pins if plan and self._batching.mode == "exact" else None
        self._findings.note(self._kind(calls), verdict, seconds=seconds, pins=pins)

    def _recall(self, calls: Sequence[Call], outputs: Sequence[Any]) -> bool:
        """Use the pins of another process, once they are proven on these rows; return whether they are."""
        kind, call, method = self._kind(calls), calls[0], self.methods[calls[0].module]
        pins = self._findings.pins(kind)
        if pins is None or not self._sizes_of(call).is_tried(kind.rows):
            return False
        plan = None
        try:
            plan = probe(method.network, method.call, calls, outputs, kind.axes, suspects=pins)
        except Exception as error:  # of a module that does not go row by row; a search asks only few
            if is_out_of_memory(error):
                raise
        if plan is None or not pins.issuperset(plan.pins):
            log.warning("%s: what is remembered of %d rows at once does not hold", call.module, kind.rows)
        if plan is None:
            return False
        log.info("%s: %d rows at once, %d modules pinned, as remembered", call.module, kind.rows, len(pins))
        self._plans[kind] = plan
        self._company.join_by(call, kind.axes)
        self._company.prove(calls, plan.pins)
        self._findings.confirm(kind, plan.pins)
        return True

    def _compared(self, sizes: Sizes, calls: Sequence[Call], plan: Plan, seconds: float) -> float:
        """Return what these calls at once take, as it would have been when the smaller sizes were timed."""
        smaller, known_s = sizes.best_below(len(calls))
        few = calls[:smaller]
        theirs = Plan(plan.axes, {}, plan.output) if smaller == 1 else self._plans.get(self._kind(few))
        if theirs is None or seconds > TURNS_S or sizes.pays(len(calls), seconds=seconds):
            return seconds
        gain = in_turns(partial(self._run_fused, few, theirs), partial(self._run_fused, calls, plan), seconds)
        return min(seconds, known_s / gain)

    def _joined(self, calls: Sequence[Call], outputs: Sequence[Any]) -> tuple[Plan, float, bool]:
        """Return how the calls are joined, what such a forward takes, and whether it gives their outputs."""
        like = layouts(outputs[0])
        found: tuple[Plan, float] | Exception | None = None
        for axes in self._company.ways(calls):
            plan = Plan(axes, {}, like)
            try:
                if self._is_compiled:  # the first forward of a size compiles it
                    self._run_fused(calls, plan)
                fused, seconds = best(partial(self._run_fused, calls, plan))
            except Exception as error:  # of a wrong way; without a right one it is told
                if is_out_of_memory(error):
                    raise
                found = found or error
                continue
            if are_close(fused, outputs):
                self._company.join_by(calls[0], axes)
                return plan, seconds, True
            found = found or (plan, seconds)
        if isinstance(found, Exception):
            raise found
        assert found is not None
        return *found, False

    def _judge(self, calls: Sequence[Call], outputs: Sequence[Any], plan: Plan) -> None:
        """Let calls with lists of other shapes share a size that is proven, if they keep their bits too."""
        method, is_exact = self.methods[calls[0].module], self._batching.mode == "exact"
        agree = are_equal if is_exact else are_close
        does_hold = agree(self._run_fused(calls, plan), outputs)
        if is_exact and does_hold and are_unlike(calls):
            does_hold = is_joined_inside(method.network, method.call, calls, plan)
        if does_hold:
            self._company.prove(calls, plan.pins)
        elif not self._company.part_ways(calls):
            self._sizes_of(calls[0]).refuse(len(calls), is_final=True)

    def _kind(self, calls: Sequence[Call]) -> Kind:
        look, axes = self._company.look(calls[0]), self._company.axes(calls[0])
        return plan_kind(calls, look, axes, by_weights=self._is_compiled)  # compiled, each weight is a graph
