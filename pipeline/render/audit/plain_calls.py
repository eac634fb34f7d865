"""Rows rendered as a script does it: nothing is shared, intercepted or remembered.

On a pipeline as it was when the renderer got it: copies of a copy that no row has seen, tokenizers and
processors included, and networks with the attributes and buffers of that time. Not covered: what modules of
Python, closures, classes and networks of second models have kept since then. A pipeline that goes by what
earlier calls left there does not repeat its plain calls either, and is found by that.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property

from framefleet.pipeline.hooks.global_draws import GlobalDraws
from framefleet.pipeline.model.loras.asked import adapters_in
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.network_state import NetworkState
from framefleet.pipeline.model.own_pipeline import OwnPipelines
from framefleet.pipeline.outputs.frames.rendered import Rendered
from framefleet.pipeline.render.encoders.text_encoders import Encoders
from framefleet.pipeline.render.fused.batcher import as_in_pipelines
from framefleet.pipeline.render.lora_layers import LoraLayers
from framefleet.pipeline.render.recipe_call import RecipeCall
from framefleet.pipeline.render.row_queue import RenderRow


class PlainCalls:
    """Plain calls of one model's rows, on what it was at `keep`, or else at the first call."""

    def __init__(
        self,
        model: Model,
        call: RecipeCall,
        loras: LoraLayers,
        encoders: Encoders,
        states: Mapping[str, NetworkState],
    ) -> None:
        """states: of networks before any row, as far as they were noted; by their names."""
        self._model, self._call, self._loras, self._encoders = model, call, loras, encoders
        self._states = states
        self._kept: _Kept | None = None

    def keep(self) -> _Kept:
        """Copy what rows may change, once: before the first of them runs. Takes some 50 ms."""
        if self._kept is None:
            self._kept = _Kept(self._model, self._states)
        return self._kept

    def __call__(self, row: RenderRow) -> Rendered:
        """Render a row that was not begun. Rows that are under way find all as it was."""
        kept = self.keep()
        with as_in_pipelines(), GlobalDraws().kept(), ExitStack() as stack:
            for network in kept.networks:
                stack.enter_context(network.restored())
            if self._model.attention:
                self._model.attention.use_again()
            self._loras.switch_on(adapters_in(row.request.arguments))
            stack.callback(self._encoders.leave)
            self._encoders.bring()
            return self._call(row, kept.pipelines)


class _Kept:
    """A model's pipeline and networks as they were at one time."""

    def __init__(self, model: Model, states: Mapping[str, NetworkState]) -> None:
        self._pipe = OwnPipelines(model.pipe, tells=False, shares_tools=False).make()
        self.networks = [
            states.get(name) or NetworkState(network) for name, network in model.networks().items()
        ]

    @cached_property
    def pipelines(self) -> OwnPipelines:
        """Copies of the copy, which no row sees: found when one is called for, as tokenizers take long."""
        return OwnPipelines(self._pipe, tells=False, shares_tools=False)
