"""Networks that keep state in themselves from forward to forward, or in which a pipeline changes something
for its row: noticed around their first forwards, and put back to what it was before these.

What is looked at, and what is not: `model/network_state.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from torch import nn

from framefleet.pipeline.model.network_state import (
    Marks,
    NetworkState,
    Spot,
    is_filled,
    is_shared,
    marks_agree,
    state_of,
)

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
