"""Networks that keep state in themselves from forward to forward: rows that take turns would mix it up.

Noticed around their first forwards, and put back to what it was before these: a row finds a new network.
What is looked at, and what is not: `model/network_state.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from contextlib import contextmanager

from torch import nn

from framefleet.pipeline.model.network_state import NetworkState, marks_agree, state_of

# Forwards of a network that are compared. State that matters changes at most steps; to look at one takes some
# 10 us for each submodule.
COMPARED = 12
# Shapes that are remembered: one that comes again is compared, for the first may fill tables that stay.
REMEMBERED = 100


class StateWatch:
    """Put around forwards of networks. found: the first attribute that one changed in itself, as a.b.c."""

    def __init__(self, switched: Collection[nn.Module] = ()) -> None:
        """switched: modules that are set for each row before they run, as LoRA layers are."""
        self.found: str | None = None
        self._switched = frozenset(switched)
        self._fresh: dict[str, NetworkState] = {}
        self._compared: dict[str, int] = {}
        self._shapes: set[Hashable] = set()

    @contextmanager
    def around(self, name: str, network: nn.Module, shape: Hashable) -> Iterator[None]:
        """Compare the network before and after the block, if a forward of that shape was there before.

        shape: begins with the network's name.
        """
        if name not in self._fresh:
            self._fresh[name] = NetworkState(network)
        if self.found or self._compared.get(name, 0) == COMPARED or not self._came_before(shape):
            yield
            return
        self._compared[name] = self._compared.get(name, 0) + 1
        before = state_of(network, self._switched)
        yield
        after = state_of(network, self._switched)
        changed = (path for path in {**before, **after} if not marks_agree(before.get(path), after.get(path)))
        self.found = next((f"{name}.{path}" for path in changed), None)

    def restore(self) -> None:
        """Put networks that keep state back to what they were before their first forward."""
        for fresh in self._fresh.values() if self.found else ():
            fresh.restore()

    def _came_before(self, shape: Hashable) -> bool:
        if shape in self._shapes:
            return True
        if len(self._shapes) < REMEMBERED:
            self._shapes.add(shape)
        return False
