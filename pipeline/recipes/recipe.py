"""Recipes: ordinary diffusers code that renders one row, and the arguments that its rows take.

A process that has run a user's recipe renders nothing else: `RecipeSet` refuses rows of a second set.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import greenlet

from framefleet.pipeline.errors import FarEnough, RecipeError, Refused, message_of
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.model_index import Configs
from framefleet.pipeline.model.specs.signature import Parameter, parameters_of
from framefleet.pipeline.model.specs.spec import PipelineSpec, spec_of
from framefleet.pipeline.recipes.guidance import open_guidance
from framefleet.pipeline.request import Request

Function = TypeVar("Function", bound=Callable[..., Any])
BATCHED = "__framefleet_batched__"  # the attribute of a function


def recipe(*, batched: bool) -> Callable[[Function], Function]:
    """Say that rows of a recipe can be rendered together: `@framefleet.recipe(batched=True)`.

    Without it, they are rendered one at a time. batched: the recipe changes nothing that outlives its call or
    that other rows share: networks, modules, torch's settings. Audits check this.
    """

    def decorate(function: Function) -> Function:
        setattr(function, BATCHED, batched)
        return function

    return decorate


_Problems = Iterable[tuple[str, Refused]]  # the argument, and why a row cannot be rendered with it


_parameters_of = functools.cache(parameters_of)  # asked for every row


def _models_own(class_name: str, configs: Configs) -> str:
    return class_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A named function `(pipe, request) -> frames`.

    It may have further parameters with defaults, which rows set like the pipeline's arguments.
    """

    name: str
    function: Callable[..., Any]
    # SHA-256 of its source file; None for framefleet's recipes, which the version covers.
    digest: str | None = None
    # Its rows may be rendered together. Not read where the code is not framefleet's: see `recipe`.
    is_batched: bool = True
    needs: tuple[str, ...] = ()  # arguments without which no row can be rendered
    makes: tuple[str, ...] = ()  # arguments of the pipeline that it makes itself
    # From the recipe's own arguments and those of the pipeline to problems between them.
    check: Callable[[Mapping[str, Any], Mapping[str, Any]], _Problems] | None = None
    # From all arguments and the clip's rate to problems between these, if there are no others.
    check_rate: Callable[[Mapping[str, Any], float], _Problems] | None = None
    # From a model's class and configs (model_index.json as "index") to the class whose call takes a row's
    # arguments. Raises RecipeError if the recipe cannot render with the model.
    pipeline: Callable[[str, Configs], str] = _models_own
    # From the same to the class that continues from its frames, if any.
    then: Callable[[str, Configs], str | None] | None = None
    # The argument that says how many frames of the row's video are rendered over, if any.
    cut_to: str | None = None

    @property
    def is_own(self) -> bool:
        """Whether its code is not framefleet's, e.g. a user's function."""
        return self.digest is not None

    def parameters(self) -> list[Parameter]:
        """What the recipe takes beyond `(pipe, request)`."""
        return list(_parameters_of(self.function)[2:])

    def problems(self, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Refused]]:
        """Yield what is missing, or wrong between cells that are fine one by one."""
        for name in self.makes:
            if arguments.get(name) is not None:
                yield name, Refused(reason=f"{self.name} makes it", fix="leave it out")
        missing = [name for name in self.needs if arguments.get(name) is None]
        for name in missing:
            yield name, Refused(reason=f"{self.name} needs it in every row", fix=f"add a column {name!r}")
        if not missing and self.check:
            defaults = {parameter.name: parameter.default for parameter in self.parameters()}
            own = {name: arguments.get(name, default) for name, default in defaults.items()}
            yield from self.check(own, arguments)

    def render(self, pipe: Any, request: Request) -> Any:
        """Call the recipe with its own arguments, which are removed from the request's.

        Schedules of guidance become objects that follow them. Raises RecipeError for `problems`.
        """
        for name, refused in self.problems(request.arguments):
            shown = repr(request.arguments[name]) if name in request.arguments else "not given"
            raise RecipeError(f"{name} is {shown}, but {refused.reason}", refused.fix)
        names = [parameter.name for parameter in self.parameters()]
        own = {name: request.arguments[name] for name in names if name in request.arguments}
        rest = {name: value for name, value in request.arguments.items() if name not in own}
        try:
            return self.function(pipe, dataclasses.replace(request, arguments=open_guidance(rest)), **own)
        except (Exception, greenlet.GreenletExit, FarEnough):
            raise
        except BaseException as error:  # e.g. of sys.exit(): it should end the row, not the process
            # Ctrl-C interrupts the main thread alone, and workers render on another.
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise
            raise RecipeError(
                f"the recipe raised {type(error).__name__}: {message_of(error)}", "raise an Exception"
            ) from error


def recipe_from(function: Callable[..., Any], *needs: str, **more: Any) -> Recipe:
    """Return a recipe with the name of its function. more: further fields."""
    return Recipe(name=function.__name__, function=function, needs=needs, **more)


def classes_called(recipe: Recipe, spec: PipelineSpec) -> list[type]:
    first = recipe.pipeline(spec.class_name, spec.configs)
    then = recipe.then(spec.class_name, spec.configs) if recipe.then else None
    return [class_named(name) for name in dict.fromkeys((first, then)) if name]


def spec_for(recipe: Recipe, spec: PipelineSpec) -> PipelineSpec:
    """Return the spec of the pipeline that `recipe` calls with rows' arguments, on the model's components.

    spec: of the model. Raises RecipeError if the recipe cannot render with it.
    """
    class_name = recipe.pipeline(spec.class_name, spec.configs)
    return spec if class_name == spec.class_name else spec_of(class_name, spec.configs)


def frames_read(recipe: Recipe, spec: PipelineSpec, arguments: Mapping[str, Any]) -> int | None:
    """Return how many frames of its video a row reads, from the first on; None if it reads all.

    spec: of the model. A pipeline that takes the number itself gets the whole video.
    """
    if recipe.cut_to is None or recipe.cut_to in spec_for(recipe, spec).parameters:
        return None
    return arguments.get(recipe.cut_to)


_FIX = "render rows of each in a process of its own, as `framefleet render` does"
_in_this_process: set[str] = set()  # users' recipes whose rows a renderer has taken


class RecipeSet:
    """The recipes that one renderer takes rows of: one of a user's, or those of framefleet."""

    def __init__(self) -> None:
        self._name: str | None = None
        self.own: Recipe | None = None  # the user's, if it is one

    @property
    def are_batched(self) -> bool:
        """Whether rows change nothing that others share, according to their recipe."""
        return self.own is None or self.own.is_batched

    def check(self, recipe: Recipe) -> None:
        """Take a row of a recipe. Raises RecipeError if the renderer has taken rows of another set.

        Warns if another renderer of this process has run a user's recipe: it may have left something.
        """
        name = recipe.name if recipe.is_own else ""
        if name == self._name:
            return
        if self._name is not None:
            raise RecipeError(
                f"this renderer has rows of {_title(self._name)}, so it renders none of {_title(name)}: "
                "a recipe of yours may leave something behind in its process",
                _FIX,
            )
        self._name, self.own = name, recipe if name else None
        if others := sorted(_in_this_process - {name}):
            warnings.warn(
                f"rows of {_title(name)} are rendered in a process that has run {', '.join(others)}, "
                f"which may have left something behind; {_FIX}",
                stacklevel=4,
            )
        if name:
            _in_this_process.add(name)


def _title(name: str) -> str:
    return name or "framefleet's own recipes"
