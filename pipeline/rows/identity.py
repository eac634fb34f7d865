"""From a request to its identity: a derived seed, the row_id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from framefleet.pipeline.guards.json_text import JsonForm, canonical_json
from framefleet.pipeline.recipes.recipe import KnownRecipes, Recipe
from framefleet.pipeline.request import Request, each_input, is_model


def deciding(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments without what decides no pixel: images and models are their SHA-256 alone."""
    return {name: _without_name(value) for name, value in arguments.items()}


def derive_seed(*, arguments: Mapping[str, Any], scheduler: str | None, recipe: str) -> int:
    """Return a seed of 32 bits that depends on what the row asks for, and not on where it stands."""
    return seed_of(canonical_json(_identifying_content(arguments, scheduler, recipe)))


def seed_form(request: Request) -> JsonForm:
    """Return what `seed_of` takes for rows that differ from `request` in its blanks."""
    return JsonForm(_identifying_content(request.arguments, request.scheduler, request.recipe))


def seed_of(content: str) -> int:
    return int(_sha256(content)[:8], 16)


def _identifying_content(arguments: Mapping[str, Any], scheduler: str | None, recipe: str) -> dict[str, Any]:
    return {"arguments": deciding(arguments), "scheduler": scheduler, "recipe": recipe}


def row_id_of(content: str) -> str:
    return _sha256(content)[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The row_ids of one model that computes in one way.

    numerics: what the job asks for (dtype, attention backend, ...); JSON values. recipes: at least those that
    its rows name; the digest of one is of the user's source, None for recipes that framefleet ships.
    """

    model_digest: str
    numerics: Mapping[str, Any]
    recipes: Mapping[str, Recipe] | KnownRecipes

    def __call__(self, request: Request) -> str:
        """Return 32 hex digits over all that decides a clip: equal row_id, equal frames at an equal rate.

        request: with resolved arguments and a canonical scheduler name, as the checks of a row leave it. Its
        `fps` counts: two rows that differ only in the fps they give are two clips. The job's own rate does
        not.
        """
        return row_id_of(canonical_json(self._identifying(request)))

    def form(self, request: Request) -> JsonForm:
        """Return what `row_id_of` takes for rows that differ from `request` in its blanks."""
        return JsonForm(self._identifying(request))

    def _identifying(self, request: Request) -> dict[str, Any]:
        return {
            "arguments": deciding(request.arguments),
            "fps": request.fps,
            "model_digest": self.model_digest,
            "numerics": self.numerics,
            "recipe": request.recipe,
            "recipe_digest": self.recipes[request.recipe].digest,
            "scheduler": request.scheduler,
            "seed": request.seed,
        }


def _without_name(value: Any) -> Any:
    if is_model(value):
        return _without("name", value)
    return each_input(value, partial(_without, "uri"))


def _without(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: inner for key, inner in value.items() if key != name}


def _sha256(content: str) -> str:
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
