"""In: a row. Out: all that its recipe returns, called on a copy of the pipeline."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from framefleet.pipeline.hooks.adapters import working_on
from framefleet.pipeline.model.loras.asked import adapters_in, without_loras
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.own_pipeline import OwnPipelines
from framefleet.pipeline.model.specs.schedulers import build, resolve_scheduler
from framefleet.pipeline.outputs.frames.rendered import Rendered, to_rendered
from framefleet.pipeline.recipes.called import frames_read
from framefleet.pipeline.recipes.known import KnownRecipes
from framefleet.pipeline.recipes.second_model import SecondModels
from framefleet.pipeline.render.idle import Idle
from framefleet.pipeline.render.postprocessing import put_off_postprocessing
from framefleet.pipeline.render.row_queue import RenderRow
from framefleet.pipeline.request import Request, is_input
from framefleet.pipeline.rows.inputs.access import Inputs
from framefleet.pipeline.rows.inputs.opened import open_arguments
from framefleet.pipeline.rows.inputs.read_ahead import ReadAhead


class RecipeCall:
    """Calls the recipes of rows that were checked."""

    def __init__(
        self,
        model: Model,
        recipes: KnownRecipes,
        second_models: SecondModels,
        inputs: Inputs,
        idle: Idle,
    ) -> None:
        self._model = model
        self._pipelines = OwnPipelines(model.pipe)  # for each row: pipelines keep the state of a call
        self._schedulers: dict[str | None, OwnPipelines] = {}  # by what the row calls it
        self._recipes = recipes
        self._second_models = second_models
        self._ahead = ReadAhead(inputs.read)
        self._idle = idle

    def read_ahead(self, request: Request) -> list[Future[bytes]]:
        """Begin to read the images and videos of a request that will come. From any thread."""
        begun = (self._ahead.start(value["uri"]) for value in request.arguments.values() if is_input(value))
        return [read for read in begun if read]

    def __call__(self, row: RenderRow, pipelines: OwnPipelines | None = None) -> Rendered:
        """pipelines: of which the row gets a copy, if not of the model's; nothing of it is put off then."""
        model, request = self._model, row.request
        scheduler = self._fresh_scheduler(request.scheduler)
        pipe = row.pipe = (pipelines or self._pipelines).make(scheduler=scheduler)
        recipe = self._recipes[request.recipe]
        if not pipelines and recipe.digest is None:  # people's own get arrays
            put_off_postprocessing(pipe, beside=model.pipe)
        with self._idle.waiting("inputs"):
            opened = open_arguments(
                self._second_models.opened(without_loras(request.arguments)),
                self._ahead.read,
                max_frames=frames_read(recipe, model.spec, request.arguments),
                mode=model.spec.picture_mode,
            )
        row.draws.seed(request.seed)  # after the models are loaded, whose networks draw weights
        with working_on([adapters_in(request.arguments)]):
            output = recipe.render(pipe, replace(request, arguments=opened))
        with self._idle.waiting("pixels"):
            return to_rendered(output, pipe)

    def _fresh_scheduler(self, name: str | None) -> Any:
        """Return one of fresh state, a copy of what is built once for each name: that takes milliseconds."""
        if name not in self._schedulers:
            choice = resolve_scheduler(name, self._model.spec)
            self._schedulers[name] = OwnPipelines(build(choice, self._model.pipe.scheduler))
        return self._schedulers[name].make()
