"""In: a row. Out: all that its recipe returns, called on a copy of the pipeline."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from framefleet.pipeline.hooks.adapters import working_on
from framefleet.pipeline.hooks.intercept import Around
from framefleet.pipeline.model.loras.lora import without_loras
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.own_pipeline import OwnPipelines, own_settings
from framefleet.pipeline.model.specs.references import references_of
from framefleet.pipeline.model.specs.schedulers import schedulers_of
from framefleet.pipeline.outputs.frames.result import Rendered, to_rendered
from framefleet.pipeline.recipes.recipe import KnownRecipes
from framefleet.pipeline.recipes.recipe_spec import frames_read
from framefleet.pipeline.recipes.second_model import SecondModels
from framefleet.pipeline.render.idle_time import Idle
from framefleet.pipeline.render.module_state import ModuleState
from framefleet.pipeline.render.postprocessing import put_off_postprocessing
from framefleet.pipeline.render.row_queue import RenderRow
from framefleet.pipeline.render.written_prompt import note_written, with_written
from framefleet.pipeline.request import Request, inputs_in
from framefleet.pipeline.rows.inputs.access import Inputs
from framefleet.pipeline.rows.inputs.arguments import ReadAhead, open_arguments


class RecipeCall:
    """Calls the recipes of rows that were checked."""

    def __init__(
        self,
        model: Model,
        recipes: KnownRecipes,
        second_models: SecondModels,
        inputs: Inputs,
        idle: Idle,
        second_try: Around,
    ) -> None:
        self._model = model
        self._pipelines = OwnPipelines(model.pipe)  # for each row: pipelines keep the state of a call
        self._schedulers: dict[str | None, dict[str, OwnPipelines]] = {}  # by what the row calls it
        self._recipes = recipes
        self._modules: dict[str, ModuleState] = {}  # of users' recipes, by the names of modules
        self._second_models = second_models
        self._ahead = ReadAhead(inputs.read)
        self._idle, self._second_try = idle, second_try

    def is_own(self, row: RenderRow) -> bool:
        """Whether a row's recipe is the function of whoever runs the job."""
        return self._recipes[row.request.recipe].is_own

    def modules(self, row: RenderRow) -> ModuleState:
        """Return what the modules of a row's recipe held before any row of this renderer."""
        function = self._recipes[row.request.recipe].function
        name = function.__module__
        if name not in self._modules:
            state = ModuleState(function)
            self._modules |= dict.fromkeys(state.names, state)
        return self._modules[name]

    def read_ahead(self, request: Request) -> list[Future[bytes]]:
        """Begin to read the images and videos of a request that will come. From any thread."""
        named = (part for value in request.arguments.values() for part in inputs_in(value))
        begun = (self._ahead.start(part["uri"]) for part in named)
        return [read for read in begun if read]

    def __call__(self, row: RenderRow, pipelines: OwnPipelines | None = None) -> Rendered:
        """pipelines: of which the row gets a copy, if not of the model's; nothing of it is put off then."""
        model, request = self._model, row.request
        fresh = self._fresh_scheduler(request.scheduler)
        recipe = self._recipes[request.recipe]
        is_ours = not pipelines and not recipe.is_own
        tokenizers = own_settings(model.pipe) if is_ours else {}  # people's own may change words as well
        pipe = row.pipe = (pipelines or self._pipelines).make(**fresh, **tokenizers)
        written = note_written(pipe)
        if is_ours:  # people's own get arrays
            put_off_postprocessing(pipe, original=model.pipe)
        with self._idle.waiting("inputs"):
            opened = open_arguments(
                self._second_models.opened(without_loras(request.arguments)),
                self._ahead.read,
                max_frames=frames_read(recipe, model.spec, request.arguments),
                mode=model.spec.picture_mode,
                references=references_of(model.pipe),
            )
        row.draws.seed(request.seed)  # after the models are loaded, whose networks draw weights
        with working_on([row.adapters]):
            output = recipe.render(pipe, replace(request, arguments=opened))
        rendered: Rendered = self._second_try("frames", self._rendered, output, pipe)
        return with_written(rendered, written)

    def _rendered(self, output: Any, pipe: Any) -> Rendered:
        with self._idle.waiting("pixels"):
            return to_rendered(output, pipe)

    def _fresh_scheduler(self, name: str | None) -> dict[str, Any]:
        """Return one of fresh state, a copy of what is built once for each name: that takes milliseconds."""
        if name not in self._schedulers:
            found = schedulers_of(self._model.pipe, name, self._model.spec)
            self._schedulers[name] = {component: OwnPipelines(made) for component, made in found.items()}
        return {component: made.make() for component, made in self._schedulers[name].items()}
