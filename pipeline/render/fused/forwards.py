"""Run parked calls that may share a forward, in sizes that pay and, in exact mode, change no bit.

Networks that keep state in themselves from forward to forward, or in which a pipeline changes something
for its row: noticed around their first forwards, and put back to what it was before these.

What is looked at, and what is not: `model/network_state.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Generator, nn

from framefleet.pipeline.hooks.adapters import AdaptersRescaled, working_on
from framefleet.pipeline.hooks.global_draws import GlobalDraws
from framefleet.pipeline.hooks.intercept import Around
from framefleet.pipeline.memory import free_memory, is_out_of_memory, whole_workspaces
from framefleet.pipeline.metrics import Spending
from framefleet.pipeline.model.network_state import (
    Marks,
    NetworkState,
    Spot,
    is_filled,
    is_shared,
    marks_agree,
    state_of,
)
from framefleet.pipeline.model.options.attention import Attention
from framefleet.pipeline.model.options.regions import has_compiled
from framefleet.pipeline.render.findings import Findings
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.pipeline.render.fused.calls import Call, Method, Methods, Result, adapters_of
from framefleet.pipeline.render.fused.compatibility import Company
from framefleet.pipeline.render.fused.concatenation import hand_back, with_holders
from framefleet.pipeline.render.fused.pins import traced
from framefleet.pipeline.render.fused.trials import Trials, clocked

# Forwards of a network that are compared. State that matters changes at most steps; to look at one takes some
# 5 us for each submodule.
COMPARED = 12
LOOKS = 2 * COMPARED  # at forwards of new shapes too

# Whether what a place held before and after a forward, or between two, is a table that was made meanwhile.
_IsTable = Callable[[Spot, Marks | None, Marks | None], bool]


class StateWatch:
    """Put around forwards of networks."""

    def __init__(
        self,
        switched: Collection[nn.Module] = (),  # that are set for each row before they run, as LoRA layers are
        networks: Mapping[str, nn.Module] | None = None,  # before any row; else as the first forward shows it
        all_networks: Collection[nn.Module] = (),  # those that rows call; some may share parts with these
    ) -> None:
        self.found: str | None = None  # the first attribute that changed, as a.b.c
        self._switched, self._all_networks = frozenset(switched), all_networks
        networks = networks or {}
        self._fresh = {name: NetworkState(network) for name, network in networks.items()}
        self.before_rows: Mapping[str, NetworkState] = dict(self._fresh)  # networks as they were given
        self._left = {name: state_of(network, self._switched) for name, network in networks.items()}
        self._looks: dict[str, int] = {}
        self._compared: dict[str, int] = {}
        self._shapes: set[Hashable] = set()

    @contextmanager
    def around(self, name: str, network: nn.Module, shape: Hashable) -> Iterator[None]:
        """Compare the network with what the last forward left, and around the block, if a forward of that
        shape was there before.

        shape: begins with the network's name.
        """
        if name not in self._fresh:
            self._fresh[name] = NetworkState(network)
        if self.found or self._compared.get(name, 0) == COMPARED or self._looks.get(name, 0) == LOOKS:
            self._left.pop(name, None)  # it would hold tensors
            yield
            return
        self._looks[name] = self._looks.get(name, 0) + 1
        came_before = shape in self._shapes  # if not, it may fill tables that stay
        self._shapes.add(shape)
        before = state_of(network, self._switched)
        left = self._left.pop(name, {})
        is_others = partial(self._is_table_of_others, network)
        self._compare(name, left, before, left.keys() & before.keys(), is_others)
        yield
        after = self._left[name] = state_of(network, self._switched)
        if came_before:
            self._compared[name] = self._compared.get(name, 0) + 1
            # What a forward makes where it found nothing, it did not read from another. It must stay: the
            # forwards after it are compared too.
            self._compare(name, before, after, {**before, **after}, lambda _, *marks: is_filled(*marks))

    def forget(self) -> None:
        """Forget what networks held: it was changed for all rows."""
        self._left.clear()

    def restore(self) -> None:
        """Put networks that keep state back to what they were before their first forward."""
        for fresh in self._fresh.values() if self.found else ():
            fresh.restore()

    def _compare(
        self,
        name: str,
        before: Mapping[Spot, Marks],
        after: Mapping[Spot, Marks],
        spots: Collection[Spot],
        is_table: _IsTable,
    ) -> None:
        for spot in spots if not self.found else ():
            marks = before.get(spot), after.get(spot)
            if not marks_agree(*marks) and not is_table(spot, *marks):
                self.found = ".".join(filter(None, (name, *spot)))
                return

    def _is_table_of_others(
        self, network: nn.Module, spot: Spot, before: Marks | None, after: Marks | None
    ) -> bool:
        """Whether another network may have made it, which holds the same object: a ControlNet runs blocks of
        its transformer. What a pipeline writes for its row is none: a row that writes nothing would read it.
        """
        others = [other for other in self._all_networks if other is not network]
        return is_filled(before, after, may_grow=True) and is_shared(network, spot, others)


class Forwards:
    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        batching: Batching,
        attention: Attention | None = None,  # is replaced when it refuses a call: AttentionChanged is raised
        watch: StateWatch | None = None,  # sees forwards of single calls, which come before all others
        findings: Findings | None = None,
        shared: Methods | None = None,  # what rows call besides denoisers and may share
        spending: Spending = nullcontext,  # held while calls run, with what time goes to; see `Clock`
    ) -> None:
        self._denoisers = modules
        self.methods = {name: Method(module) for name, module in modules.items()} | dict(shared or {})
        self._watch = watch or StateWatch()
        self._attention = attention
        self._is_compiled = any(map(has_compiled, modules.values()))
        self._rescaled: set[Hashable] = set()  # looks of calls that change weights of LoRAs as they run
        self._company = Company()
        self._second_try = second_try(lambda: None)  # others are parked: they hold what they will hold
        self.spending = spending
        self._trials = Trials(
            self.methods, batching, self._company, findings or Findings(), is_compiled=self._is_compiled
        )
        self.reach = self._trials.reach

    def groups(self, calls: Sequence[Call]) -> list[list[int]]:
        """Return the places of the calls that may share a forward; if compiled, those of equal LoRAs."""
        groups = self._company.groups(calls)
        if not self._is_compiled:
            return groups
        by_loras: dict[Hashable, list[int]] = {}
        for number, places in enumerate(groups):
            for place in places:
                by_loras.setdefault((number, calls[place].adapters.in_force), []).append(place)
        return list(by_loras.values())

    def run(self, calls: Sequence[Call]) -> list[Result]:
        """Run calls of one group; results in their order. Raises nothing that a row caused."""
        results: list[Result] = []
        while waiting := len(calls) - len(results):
            # A call that found no company leaves nothing behind: its shape may hold objects of one row.
            look = self._company.look(calls[0])
            is_alone = waiting == 1 or not calls[0].batch or look is None or look in self._rescaled
            size = 1 if is_alone else self._trials.sizes_of(calls[0]).take(waiting)
            results += self._run_chunk(calls[len(results) : len(results) + size])
        return results

    def run_here(self, call: Call, forward: Callable[[], Any]) -> Result:
        """Make a call where its row stands, as the row may have put something of its own around it."""
        try:
            return Result(forward(), None, 1)
        except Exception as error:  # whatever a model raises
            self._blame_attention(forward, error)
            return Result(None, error, 1)

    def is_denoising(self, call: Call) -> bool:
        return call.module in self._denoisers

    def turns(self, calls: Sequence[Call]) -> int:
        """Return how many of these calls, which may share a forward, continue now; the first ones."""
        has_look = len(calls) > 1 and calls[0].batch and self._company.look(calls[0]) is not None
        return self._trials.sizes_of(calls[0]).num_going_on(len(calls)) if has_look else len(calls)

    def _run_chunk(self, calls: Sequence[Call]) -> list[Result]:
        self._trials.count_forward(calls[0])
        if len(calls) == 1:
            return [self._run_one(calls[0])]
        try:
            if (plan := self._trials.plan(calls)) is None:
                return self._try_size(calls)
            outputs = self._trials.run(calls, plan)
            for call, (_, holders) in zip(calls, outputs, strict=True):
                hand_back(call, holders)
            return [Result(output, None, len(calls)) for output, _ in outputs]
        except AdaptersRescaled:
            self._rescaled.add(self._company.look(calls[0]))
            is_full = False
        except Exception as error:  # whatever a model raises; each row alone shows whose it is
            is_full = is_out_of_memory(error)
        if not is_full:
            return [self._run_one(call) for call in calls]
        self._trials.halve(calls)  # after the handler: until then the exception holds the forward's tensors
        return self.run(calls)

    def _run_one(self, call: Call) -> Result:
        try:
            with self._watching(call):
                return Result(self._run_alone(call), None, 1)
        except Exception as error:  # belongs to this row: handed to its recipe
            if self.is_denoising(call):
                self._blame_attention(partial(self._run_alone, call), error)
            return Result(None, error, 1)

    def _blame_attention(self, forward: Callable[[], Any], error: Exception) -> None:
        """Raise AttentionChanged if a forward failed by its attention backend, and another takes it."""
        if self._attention:
            self._attention.replace(forward, error)

    def _watching(self, call: Call) -> AbstractContextManager[None]:
        if not self.is_denoising(call):
            return nullcontext()
        return self._watch.around(call.module, self._denoisers[call.module], call.shape)

    def _run_alone(self, call: Call) -> Any:
        with working_on(adapters_of([call])), call.draws.turn():
            if call.holders or any(isinstance(leaf, torch.Generator) for leaf in call.leaves):
                return self._called(call)  # what it changed of these cannot be taken back
            return self._second_try(call.module, self._called, call)

    def _called(self, call: Call) -> Any:
        method = self.methods[call.module]
        args, kwargs = call.arguments()
        if self._company.look(call) is not None:
            return method.call(*args, **kwargs)
        inner, output = traced(method, args, kwargs)
        self._company.saw(call, inner)
        return output

    def _try_size(self, calls: Sequence[Call]) -> list[Result]:
        """Run the calls one by one for their results, then learn what this many at once give.

        No call is run again for another's error: it may have changed its arguments.
        """
        alone = [clocked(partial(self._run_one, call)) for call in calls]
        results = [result for result, _ in alone]
        if errors := [result.error for result in results if result.error]:
            if any(isinstance(error, AdaptersRescaled) for error in errors):
                self._rescaled.add(self._company.look(calls[0]))
            elif any(map(is_out_of_memory, errors)):
                self._trials.halve(calls)
            return results
        pairs = zip(calls, results, strict=True)
        outputs = [with_holders(result.value, *call.arguments()) for call, result in pairs]
        with self.spending("probe"):
            self._trials.learn(calls, outputs, alone_s=min(seconds for _, seconds in alone))
        return results


def second_try(wait: Callable[[], None]) -> Around:
    """wait: has the row that is running wait until it has the model for itself."""

    def called(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        draws = GlobalDraws.now()
        try:
            with whole_workspaces():
                return original(*args, **kwargs)
        except Exception as error:
            # What a generator of the row's own gave is gone.
            has_drawn = any(isinstance(value, Generator) for value in (*args, *kwargs.values()))
            if has_drawn or not is_out_of_memory(error):
                raise
        free_memory()  # after the handler: until then the exception holds the call's tensors
        wait()
        draws.resume()
        return original(*args, **kwargs)

    return called
