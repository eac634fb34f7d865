"""In: a request as a caller wrote it. Out: the same, checked and resolved, and its row_id."""

from __future__ import annotations

from framefleet.pipeline.guards.mistakes import expected
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.recipes.recipe import KnownRecipes
from framefleet.pipeline.recipes.second_model import SecondModels
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.identity import Identity
from framefleet.pipeline.rows.inputs.access import Inputs
from framefleet.pipeline.rows.inputs.survey import InputIndex
from framefleet.pipeline.rows.tables.request_checks import checked


class RequestCheck:
    """Checks the requests for one model."""

    def __init__(
        self,
        model: Model,
        recipes: KnownRecipes,
        second_models: SecondModels,
        inputs: Inputs,
        identity: Identity,
    ) -> None:
        self._model = model
        self._recipes = recipes
        self._second_models = second_models
        self._finder = InputIndex(inputs)
        self._identity = identity

    def __call__(self, request: Request, index: int) -> tuple[Request, str]:
        """index: its number, for messages. Raises TableError when it cannot be rendered as asked."""
        expected(request, Request, f"request {index}", 'give framefleet.Request(arguments={"prompt": ...})')
        request = checked(
            request,
            self._model.spec,
            self._recipes[request.recipe],
            finder=self._finder,
            loras=self._model.settings.loras,
            second_models=self._second_models.declared,
            index=index,
        )
        return request, self._identity(request)
