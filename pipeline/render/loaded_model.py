"""A model as it was loaded, and what its calls have changed since: found when a row ends, and put back.

Recipes of framefleet call pipelines of diffusers, which put back what they change unless they fail. Rows of a
user's recipe are not looked at, as no list of what these may change is complete: they have processes of their
own, and are judged by processes that have run none of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property

from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.network_state import Marks, NetworkState, Spot, is_filled, state_of
from framefleet.pipeline.model.own_pipeline import OwnPipelines
from framefleet.pipeline.model.snapshot import Pristine
from framefleet.pipeline.render.lora_layers import LoraLayers


class Loaded:
    """What calls may change of a model, as it was before any of them. Takes some 50 ms to note."""

    def __init__(
        self,
        model: Model,
        loras: LoraLayers,
        states: Mapping[str, NetworkState],
        *,
        moving: Collection[str],
    ) -> None:
        """states: of networks, as far as they were noted; by their names. moving: those whose weights come
        and go.
        """
        self._pipe = OwnPipelines(model.pipe, tells=False, shares_tools=False).make()
        self._networks, self._switched = model.networks(), frozenset(loras.modules)
        self._states = [states.get(name) or NetworkState(network) for name, network in self._networks.items()]
        self._moving = moving
        self._marks: dict[str, tuple[dict[Spot, Marks], list[int]]] = {}
        self._pristine = Pristine(self._networks)
        self.difference, self.differences = self._pristine.difference, self._pristine.differences

    @cached_property
    def pipelines(self) -> OwnPipelines:
        """Copies of a copy that no row sees: found when one is called for, as tokenizers take long."""
        return OwnPipelines(self._pipe, tells=False, shares_tools=False)

    @contextmanager
    def networks(self) -> Iterator[None]:
        """Let networks hold what they did when they were loaded, and afterwards what they held before."""
        with ExitStack() as stack:
            for state in self._states:
                stack.enter_context(state.restored())
            yield

    def restore(self) -> None:
        """Put the networks back to what they were."""
        self._pristine.restore()
        for state in self._states:
            state.restore()

    def note_networks(self) -> None:
        """Note what `is_untouched` compares, before the first row of a user's recipe."""
        if not self._marks:
            self._marks = {name: self._marks_of(name) for name in self._networks}

    def is_untouched(self, name: str) -> bool:
        """Whether a network is as it was: what it returned before stands for what it would return."""
        if next(self._pristine.differences([name]), None) is not None:
            return False
        if name not in self._marks:
            return True
        (before, versions), (now, new_versions) = self._marks[name], self._marks_of(name)
        # A first forward may fill tables.
        return versions == new_versions and all(
            is_filled(marks, now.get(spot), may_grow=True) for spot, marks in before.items()
        )

    def _marks_of(self, name: str) -> tuple[dict[Spot, Marks], list[int]]:
        """Return its attributes, and the versions of its weights, which `.data` does not change."""
        weights = () if name in self._moving else self._networks[name].parameters()
        versions = [-1 if weight.is_inference() else weight._version for weight in weights]
        return state_of(self._networks[name], self._switched), versions
