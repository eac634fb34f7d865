"""A model as it was loaded, put back to it, and rows whose own code changes what all rows share.

Such rows are found when their turn ends, before another row's begins. Recipes of framefleet call pipelines of
diffusers, which put back what they change before they call a denoiser; so for these rows it is enough to look
when they end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property

from torch import nn

from framefleet.pipeline.errors import FramefleetError, ModelError
from framefleet.pipeline.model.load import read_again
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.network_state import NetworkState, marks_agree, state_of
from framefleet.pipeline.model.own_pipeline import OwnPipelines
from framefleet.pipeline.model.snapshot import Pristine
from framefleet.pipeline.render.lora_layers import LoraLayers
from framefleet.pipeline.render.process_state import ModuleState, changed_since, process_state
from framefleet.pipeline.render.row_queue import RenderRow
from framefleet.pipeline.render.text_encoders import Encoders

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
        self.difference, self.differences = self._pristine.difference, self._pristine.differences
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


class Meddled(Exception):
    """Code of a row changed what all rows share."""

    def __init__(self, row: RenderRow, what: str) -> None:
        super().__init__(what)
        self.row, self.what = row, what


class RowWatch:
    """Watches the rows of one renderer."""

    def __init__(
        self,
        loaded: Loaded,
        denoisers: Mapping[str, nn.Module],
        switched: Collection[nn.Module],
        is_own: Callable[[RenderRow], bool],
        modules: Callable[[RenderRow], ModuleState],
    ) -> None:
        """switched: LoRA layers, which are set for each row. is_own: whether a row's recipe is its user's.
        modules: of such a recipe.
        """
        self._loaded, self._denoisers = loaded, denoisers
        self._switched, self._is_own, self._modules = frozenset(switched), is_own, modules
        self._expected: frozenset[str] = frozenset()  # what a step cache changes

    def begin(self, row: RenderRow, *, has_cache: bool) -> None:
        """A row starts, with its step cache on, if it has one."""
        is_own = self._is_own(row)
        self._expected = frozenset(self._loaded.differences() if has_cache or is_own else ())
        if is_own:
            self._loaded.sum_weights()
            self._modules(row)

    @contextmanager
    def turn(self, row: RenderRow) -> Iterator[None]:
        """Raise Meddled where the code of a row, which is the block, leaves something changed."""
        if not self._is_own(row):
            yield
            return
        before = {name: state_of(network, self._switched) for name, network in self._denoisers.items()}
        surroundings, modules = process_state(), self._modules(row)
        remembered = modules.now()
        yield
        what = (
            self._loaded.difference(values=True, expected=self._expected)
            or changed_since(surroundings)
            or modules.changed_since(remembered)
        )
        for name, network in self._denoisers.items() if not what else ():
            after = state_of(network, self._switched)
            spots = {**before[name], **after}
            changed = (spot for spot in spots if not marks_agree(before[name].get(spot), after.get(spot)))
            what = what or next((".".join(filter(None, (name, *spot))) for spot in changed), None)
        if what:
            raise Meddled(row, what)

    def check(self, ended: Iterable[RenderRow]) -> None:
        """Raise Meddled where rows that ended together with others have left something changed."""
        for row in ended:
            if self._is_own(row):  # its last turn was compared
                continue
            # The next one may have begun meanwhile, with its step cache on.
            if what := self._loaded.difference(expected=self._expected):
                raise Meddled(row, what)
