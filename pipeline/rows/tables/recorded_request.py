"""From a request as a record has it to one that a row can have asked for: the record may be anybody's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.model.loras.lora import ARGUMENT as LORA
from framefleet.pipeline.model.specs.check import check_fps, check_seed
from framefleet.pipeline.model.specs.refusal import Refused, shown
from framefleet.pipeline.model.specs.schedulers import resolve_scheduler
from framefleet.pipeline.model.specs.signature import PLACES, ArgumentKind
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.recipes.duration import check_film
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.recipes.recipe_spec import spec_for
from framefleet.pipeline.request import Request, is_input
from framefleet.pipeline.rows.tables.limits import limits
from framefleet.pipeline.rows.tables.row_plan import check_value, meanings
from framefleet.pipeline.rows.tables.step_lists import check_step_lists


def check_again(request: Request, spec: PipelineSpec, recipe: Recipe) -> Request:
    """Return the request as its row asked for it. Raises TableError for what no row can have asked for.

    spec: of the model. Not covered: what its images, models and LoRAs hold.
    """
    called = spec_for(recipe, spec)
    found = [*_wrong_values(request, called, recipe)]
    if not found:
        arguments, fps = request.arguments, request.fps
        found += [*recipe.problems(arguments), *limits(called, arguments)]
        found += check_step_lists(arguments, resolve_scheduler(request.scheduler, called), called)
        if fps is not None and "duration_s" in recipe.needs:
            found += check_film(arguments, arguments["duration_s"], fps)
    for name, refused in found:
        value = shown(request.arguments.get(name, getattr(request, name, None)))
        raise TableError(f"the record's {name} is {value}, but {refused.reason}", refused.fix)
    return replace(request, arguments=called.from_json(request.arguments))


def _wrong_values(request: Request, spec: PipelineSpec, recipe: Recipe) -> Iterator[tuple[str, Refused]]:
    kinds = meanings(spec, recipe)
    back = "put the record back as it was"
    found: dict[str, Any] = {"seed": check_seed(request.seed)}
    found |= {} if request.fps is None else {"fps": check_fps(request.fps)}
    for name, value in request.arguments.items():
        kind = kinds.get(name)
        if kind is None:
            found[name] = Refused(reason=f"{spec.class_name} takes none", fix=back)
        elif not _is_of_its_kind(name, value, kind):
            found[name] = Refused(reason="its type is another", fix=back)
        elif kind not in (*PLACES, "model") and name != LORA:
            found[name] = check_value(name, value, kind, spec)  # type: ignore[arg-type]
    return ((name, checked) for name, checked in found.items() if isinstance(checked, Refused))


def _is_of_its_kind(name: str, value: Any, kind: ArgumentKind) -> bool:
    """Whether a value is a mapping, or a list of media, where its argument is one, and only there."""
    if kind == "references":
        return (
            isinstance(value, list)
            and bool(value)
            and all(is_input(part) and "kind" in part for part in value)
        )
    if isinstance(value, list) and kind in ("images", "list[image]"):
        return bool(value) and all(map(is_input, value))
    is_mapping = name == LORA or kind in ("image", "video", "images", "model")
    return isinstance(value, Mapping) == is_mapping and kind != "list[image]"
