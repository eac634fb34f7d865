"""From a model and a recipe to what the rows of that recipe accept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.spec import PipelineSpec, spec_of
from framefleet.pipeline.recipes.recipe import Recipe, recipe_class


def classes_called(recipe: Recipe, spec: PipelineSpec) -> list[type]:
    """Return the pipelines of diffusers that `recipe` calls on this model."""
    first = recipe_class(recipe, spec.class_name, spec.configs)
    then = recipe.then(spec.class_name, spec.configs)
    return [class_named(name) for name in dict.fromkeys((first, then)) if name]


def spec_for(recipe: Recipe, spec: PipelineSpec) -> PipelineSpec:
    """Return the spec of the pipeline that `recipe` calls, over the model's components, with rows' arguments.

    spec: of the model. Raises RecipeError when the recipe cannot render with it.
    """
    class_name = recipe_class(recipe, spec.class_name, spec.configs)
    return spec if class_name == spec.class_name else spec_of(class_name, spec.configs)


def frames_read(recipe: Recipe, spec: PipelineSpec, arguments: Mapping[str, Any]) -> int | None:
    """Return how many frames of its video a row reads, from the first on; None where it reads all.

    spec: of the model. A pipeline that takes the number itself is given the whole video.
    """
    if recipe.cut_to is None or recipe.cut_to in spec_for(recipe, spec).parameters:
        return None
    return arguments.get(recipe.cut_to)
