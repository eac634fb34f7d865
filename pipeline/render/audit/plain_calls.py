"""The one meaning of plain: a row rendered as a script does, with nothing intercepted, memoized or reapplied.

The judge: audits, rows of kinds that differed, `replay` and `verify` call this, and the script that
`replay` prints does the same. It works on the pipeline as it was loaded: on a copy of a copy that no row has
seen, with the networks' attributes and buffers of that time. What a call of framefleet's recipes changed in
networks is put back afterwards; of a user's recipe nothing is undone. Not covered: what modules of libraries
and networks of second models keep. A pipeline that depends on what earlier calls left there does not repeat
its plain calls either, and is found by that.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack

import torch

from framefleet.pipeline.hooks.global_draws import GlobalDraws
from framefleet.pipeline.memory import NoWorkspace, free_memory, whole_workspaces
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.options.step_cache import StepCache
from framefleet.pipeline.model.snapshot import Loaded
from framefleet.pipeline.outputs.frames.result import Rendered
from framefleet.pipeline.render.fused.batcher import as_in_pipelines
from framefleet.pipeline.render.lora_layers import LoraLayers
from framefleet.pipeline.render.recipe_call import RecipeCall
from framefleet.pipeline.render.row_queue import RenderRow
from framefleet.pipeline.render.text_encoders import Encoders

log = logging.getLogger(__name__)


class PlainCalls:
    def __init__(
        self, model: Model, call: RecipeCall, loras: LoraLayers, encoders: Encoders, loaded: Loaded
    ) -> None:
        self._model, self._call, self._loras, self._encoders = model, call, loras, encoders
        self._loaded = loaded
        cache = model.settings.options.cache
        self._cache = StepCache(cache, model.denoisers()) if cache else None
        self._told: set[str] = set()

    def __call__(self, row: RenderRow) -> Rendered:
        """Render a row from its beginning; again if torch took other kernels for want of memory."""
        try:
            with whole_workspaces():
                return self.once(row)
        except NoWorkspace:
            about = {"row_id": row.row_id}
            log.info("row %s is rendered again: memory ran out for a workspace", row.row_id, extra=about)
        free_memory()
        return self.once(row)

    def once(self, row: RenderRow) -> Rendered:
        """Render a row from its beginning. Rows that are under way find all as it was."""
        is_own = self._call.is_own(row)
        self._loras.release()  # before networks are as they were loaded: rows under way keep theirs
        with ExitStack() as stack:
            stack.enter_context(as_in_pipelines())
            stack.enter_context(torch.set_grad_enabled(is_own))  # as in a script, around pipelines
            if self._model.placer:
                stack.enter_context(self._model.placer.alone())
            stack.enter_context(GlobalDraws().preserved())
            stack.enter_context(self._loaded.networks())
            if self._model.attention:
                self._model.attention.use_again()
            self._loras.hold(row.adapters)
            self._encoders.bring()
            try:
                if self._cache:
                    steps = row.request.arguments.get("num_inference_steps", 1)
                    self._cache.start(steps=steps, pipe=lambda: row.pipe)
                return self._call(row, self._loaded.pipelines)
            finally:
                if self._cache:
                    self._cache.stop()
                self._loras.release()
                self._encoders.leave()
                if not is_own and (what := self._loaded.difference()):
                    if row.kind not in self._told:
                        self._told.add(row.kind)
                        log.warning("rows of %s leave %s changed: it is put back after each", row.kind, what)
                    self._loaded.restore()
