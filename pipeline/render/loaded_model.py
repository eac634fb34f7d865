"""A model as it was loaded, and what its calls have changed since: found when a row ends, and put back.

Recipes of framefleet call pipelines of diffusers, which put back what they change unless they fail. Rows of a
user's recipe are not looked at, as no list of what these may change is complete: they have processes of their
own, and are judged by processes that have run none of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property

from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.network_state import NetworkState
from framefleet.pipeline.model.own_pipeline import OwnPipelines
from framefleet.pipeline.model.snapshot import Pristine


class Loaded:
    """What calls may change of a model, as it was before any of them. Takes some 50 ms to note."""

    def __init__(self, model: Model, states: Mapping[str, NetworkState]) -> None:
        """states: of networks, as far as they were noted; by their names."""
        self._pipe = OwnPipelines(model.pipe, tells=False, shares_tools=False).make()
        networks = model.networks()
        self._states = [states.get(name) or NetworkState(network) for name, network in networks.items()]
        self._pristine = Pristine(networks)
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

    def is_untouched(self, name: str) -> bool:
        """Whether a network is as it was: what it returned before stands for what it would return."""
        return next(self._pristine.differences([name]), None) is None
