"""From a request to its derived seed, row_id, shape, rank, and lane.

A lane is the rows that may share a worker's process. A process that has run a user's code renders nothing
else. So a lane is a model and a set of recipes: either all recipes of framefleet, or a single one of a user,
because even functions of one module may spoil each other's rows.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS
from framefleet.pipeline.recipes.catalog import is_of_user
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.request import Request, each_input, inputs_in, is_model


def deciding(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return only what decides pixels: of images and models, the SHA-256 and not the place."""

    def without(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
        return {key: inner for key, inner in value.items() if key != name}

    return {
        name: without("name", value) if is_model(value) else each_input(value, partial(without, "uri"))
        for name, value in arguments.items()
    }


def derive_seed(*, arguments: Mapping[str, Any], scheduler: str | None, recipe: str) -> int:
    """Return a 32-bit seed that depends on what the row asks for, and not on its place in the table."""
    return seed_of(canonical_json(seeding(arguments, scheduler, recipe)))


def seeding(arguments: Mapping[str, Any], scheduler: str | None, recipe: str) -> dict[str, Any]:
    """Return what decides a derived seed."""
    return {"arguments": deciding(arguments), "scheduler": scheduler, "recipe": recipe}


def seed_of(content: str) -> int:
    return int(_sha256(content)[:8], 16)


def row_id_of(content: str) -> str:
    return _sha256(content)[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Computes row_ids, for one model and one set of options.

    numerics: what the job asks for (dtype, attention backend, ...); JSON values. recipes: at least those that
    rows name; `digest` is that of the user's source, None for framefleet's own recipes.
    """

    model_digest: str
    numerics: Mapping[str, Any]
    recipes: Mapping[str, Recipe]

    def __call__(self, request: Request) -> str:
        """Return 32 hex digits that cover all that decides a clip: equal row_id, equal frames and rate.

        request: with resolved arguments and a canonical scheduler name, i.e. after its checks. Its `fps`
        counts: two rows that differ only in `fps` are two clips. The job's own rate does not count.
        """
        return row_id_of(canonical_json(self.content(request)))

    def content(self, request: Request) -> dict[str, Any]:
        """Return what the row_id is the hash of, as JSON values."""
        digest = self.recipes[request.recipe].digest
        return row_content(
            request, model_digest=self.model_digest, numerics=self.numerics, recipe_digest=digest
        )


def row_content(
    request: Request, *, model_digest: str, numerics: Mapping[str, Any], recipe_digest: str | None
) -> dict[str, Any]:
    """Return all that decides a clip, as JSON values. numerics, recipe_digest: see `Identity`."""
    return {
        "arguments": deciding(request.arguments),
        "fps": request.fps,
        "model_digest": model_digest,
        "numerics": numerics,
        "recipe": request.recipe,
        "recipe_digest": recipe_digest,
        "scheduler": request.scheduler,
        "seed": request.seed,
    }


def _sha256(content: str) -> str:
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def input_shape(request: Request) -> str:
    """Return a text that is equal for rows whose tensors have equal shapes: it omits e.g. prompts."""
    arguments: dict[str, Any] = {}
    for name, value in request.arguments.items():
        if pictures := inputs_in(value):
            arguments[name] = [picture.get("num_frames", 1) for picture in pictures]
        elif isinstance(value, float):
            arguments[name] = value > 1  # guidance is on or off
        else:
            arguments[name] = value if decides_shape(value) else ""
    return canonical_json([arguments, request.scheduler, request.recipe])


def decides_shape(value: Any) -> bool:
    return isinstance(value, int | list) and not inputs_in(value)


AS_TABLE, LONGEST, PRIORITY = "table", "longest", "priority:"
_WORK = (*FRAME_PARAMETERS, "height", "width", "num_inference_steps")


def check_order(order: str, *columns: pa.Schema) -> None:
    """Raise JobError if `order` names a column that does not exist, or has no numbers."""
    if not order.startswith(PRIORITY):
        return
    name = order.removeprefix(PRIORITY)
    types = {field.name: field.type for fields in columns for field in fields}
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    numeric = [column for column, kind in types.items() if any(is_kind(kind) for is_kind in kinds)]
    if name not in types:
        problem = f"order is {order!r}, but no carried column or argument is called {name!r}"
        raise JobError(problem, did_you_mean(name, numeric))
    if name not in numeric:
        raise JobError(f"order is {order!r}, but {name!r} holds {types[name]}", "name a column of numbers")


def rank_of(order: str, request: Request, carried: pa.RecordBatch) -> float:
    """Return the rank of a row: the highest goes first, rows without a number last.

    carried: its carried columns.
    """
    if order == LONGEST:
        return work_in(request)
    name = order.removeprefix(PRIORITY)
    value = carried[name][0].as_py() if name in carried.schema.names else request.arguments.get(name)
    if not isinstance(value, int | float | Decimal):  # an argument may be a list, or a schedule as text
        return -math.inf
    return -math.inf if math.isnan(value) else float(value)


def work_in(request: Request) -> float:
    """Return frames x pixels x steps, to compare rows of one model."""
    factors = (request.arguments.get(name) for name in _WORK)
    return float(math.prod(factor for factor in factors if isinstance(factor, int | float)))


class LaneKey(NamedTuple):
    """model: its name in a job with several, else "". recipe: the user's; "" for framefleet's own."""

    model: str = ""
    recipe: str = ""

    def __str__(self) -> str:
        return ", ".join(part for part in self if part)

    @property
    def title(self) -> str:
        """Its name for people."""
        return ", ".join(filter(None, [self.model, self.recipe or "framefleet's own recipes"]))


def lane_of(request: Request) -> LaneKey:
    return lane_named(request.model, request.recipe)


@functools.cache  # called for every row
def lane_named(model: str, recipe: str) -> LaneKey:
    return LaneKey(model, recipe if is_of_user(recipe) else "")
