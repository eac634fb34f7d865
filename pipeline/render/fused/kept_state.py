"""Networks that keep state in themselves from forward to forward, or in which a pipeline changes something
for its row: rows that take turns would mix it up.

Noticed around their first forwards, and put back to what it was before these: a row finds a new network.
What is looked at, and what is not: `model/network_state.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from framefleet.pipeline.model.network_state import Marks, NetworkState, Spot, marks_agree, state_of

# Forwards of a network that are compared. State that matters changes at most steps; to look at one takes some
# 5 us for each submodule.
COMPARED = 12
LOOKS = 2 * COMPARED  # at forwards of new shapes too
# Shapes that are remembered: one that comes again is compared, for the first may fill tables that stay.
REMEMBERED = 100


class StateWatch:
    """Put around forwards of networks.

    found: the first attribute that changed, as a.b.c. before_rows: the networks as they were given.
    """

    def __init__(
        self, switched: Collection[nn.Module] = (), networks: Mapping[str, nn.Module] | None = None
    ) -> None:
        """switched: modules that are set for each row before they run, as LoRA layers are. networks: as they
        are before any row; of others the first forward shows it.
        """
        self.found: str | None = None
        self._switched = frozenset(switched)
        networks = networks or {}
        self._fresh = {name: NetworkState(network) for name, network in networks.items()}
        self.before_rows: Mapping[str, NetworkState] = dict(self._fresh)
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
        came_before = self._came_before(shape)
        if self.found or self._compared.get(name, 0) == COMPARED or self._looks.get(name, 0) == LOOKS:
            self._left.pop(name, None)  # it would hold tensors
            yield
            return
        self._looks[name] = self._looks.get(name, 0) + 1
        before = state_of(network, self._switched)
        left = self._left.pop(name, {})
        self._compare(name, left, before, left.keys() & before.keys())
        yield
        after = self._left[name] = state_of(network, self._switched)
        if came_before:
            self._compared[name] = self._compared.get(name, 0) + 1
            self._compare(name, before, after, {**before, **after})

    def forget(self) -> None:
        """What networks hold was changed for all rows."""
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
    ) -> None:
        changed = (spot for spot in spots if not marks_agree(before.get(spot), after.get(spot)))
        self.found = self.found or next((".".join(filter(None, (name, *spot))) for spot in changed), None)

    def _came_before(self, shape: Hashable) -> bool:
        if shape in self._shapes:
            return True
        if len(self._shapes) < REMEMBERED:
            self._shapes.add(shape)
        return False
