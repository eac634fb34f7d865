"""From a request to its identity: a derived seed, the row_id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.recipes.known import KnownRecipes
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.request import Request, is_input, is_model


def deciding(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments without what decides no pixel: images and models are their SHA-256 alone."""
    return {name: _without_name(value) for name, value in arguments.items()}


def derive_seed(*, arguments: Mapping[str, Any], scheduler: str | None, recipe: str) -> int:
    """Return a seed of 32 bits that depends on what the row asks for, and not on where it stands."""
    content = canonical_json({"arguments": deciding(arguments), "scheduler": scheduler, "recipe": recipe})
    return int.from_bytes(_sha256(content)[:4], "big")


def row_id(
    request: Request,
    *,
    model_digest: str,
    numerics: Mapping[str, Any],
    recipe_digest: str | None,
) -> str:
    """Return 32 hex digits over all that decides a clip: equal row_id, equal frames at an equal rate.

    request: with resolved arguments and a canonical scheduler name, as the checks of a row leave it. Its
    `fps` counts: two rows that differ only in the fps they give are two clips. The job's own rate does not.
    numerics: what the job asks for (dtype, attention backend, ...); JSON values.
    recipe_digest: of the user's source; None for recipes that framefleet ships.
    """
    content = canonical_json(
        {
            "arguments": deciding(request.arguments),
            "fps": request.fps,
            "model_digest": model_digest,
            "numerics": numerics,
            "recipe": request.recipe,
            "recipe_digest": recipe_digest,
            "scheduler": request.scheduler,
            "seed": request.seed,
        }
    )
    return _sha256(content)[:16].hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The row_ids of one model that computes in one way. recipes: at least those that its rows name."""

    model_digest: str
    numerics: Mapping[str, Any]
    recipes: Mapping[str, Recipe] | KnownRecipes

    def __call__(self, request: Request) -> str:
        return row_id(
            request,
            model_digest=self.model_digest,
            numerics=self.numerics,
            recipe_digest=self.recipes[request.recipe].digest,
        )


def _without_name(value: Any) -> Any:
    name = "uri" if is_input(value) else "name" if is_model(value) else None
    return {key: inner for key, inner in value.items() if key != name} if name else value


def _sha256(content: str) -> bytes:
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()
