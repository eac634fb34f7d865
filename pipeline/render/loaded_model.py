"""A model as it was loaded: pipelines like it for plain calls, and the model itself put back to it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property

from framefleet.pipeline.errors import FramefleetError, ModelError
from framefleet.pipeline.model.load import read_again
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.network_state import NetworkState
from framefleet.pipeline.model.own_pipeline import OwnPipelines
from framefleet.pipeline.model.snapshot import Pristine
from framefleet.pipeline.render.encoders.text_encoders import Encoders
from framefleet.pipeline.render.lora_layers import LoraLayers

log = logging.getLogger(__name__)


class Spoiled(ModelError):
    """A row changed the model or its code for good: no other row is to be rendered in this process."""


class Loaded:
    """What rows may change of a model, as it was before any of them. Takes some 50 ms to note."""

    def __init__(
        self, model: Model, loras: LoraLayers, encoders: Encoders, states: Mapping[str, NetworkState]
    ) -> None:
        """states: of networks, as far as they were noted; by their names."""
        self._model = model
        self._pipe = OwnPipelines(model.pipe, tells=False, shares_tools=False).make()
        networks = model.networks()
        self._states = [states.get(name) or NetworkState(network) for name, network in networks.items()]
        options = model.settings.options
        moving = networks if options.offload or options.layerwise_casting else encoders.parked
        self._pristine = Pristine(model.pipe, networks, switched=loras.modules, moving=moving)
        self.sum_weights = self._pristine.sum_weights
        self.difference = self._pristine.difference
        self.is_untouched = self._pristine.is_untouched

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

    def restore(self, *, values: bool = False) -> None:
        """Put the model, and the code that it runs, back to what they were.

        Weights with other values are read again from the model's files. values: look for such weights by
        their sums too. Raises Spoiled where they cannot be read again.
        """
        changed = self._pristine.restore(twins=self._pipe, values=values)
        for state in self._states:
            state.restore()
        if changed:
            log.warning("the weights of %s were changed by a row, and are read again", ", ".join(changed))
            try:
                read_again(self._model, changed)
            except FramefleetError as error:
                raise Spoiled(error.problem, error.fix) from error
            for name in changed:
                self._pristine.settle(name)
