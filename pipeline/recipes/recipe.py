"""Recipes: ordinary diffusers code that renders one row, and what the rows of each accept.

A process that has run a user's recipe renders nothing else: `RecipeSet` refuses rows of a second set.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import greenlet

from framefleet.pipeline.errors import FarEnough, RecipeError, Refused, message_of, shown
from framefleet.pipeline.guards.mistakes import did_you_mean, either
from framefleet.pipeline.guards.named_function import named_function, source_digest
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.model_index import Configs
from framefleet.pipeline.model.specs.signature import Parameter, parameters_of
from framefleet.pipeline.model.specs.spec import PipelineSpec, spec_of
from framefleet.pipeline.recipes.conditioning import (
    check_refine,
    conditioned_class,
    image_to_video,
    refine,
    refining_class,
    text_to_image_to_video,
    video_to_video,
)
from framefleet.pipeline.recipes.extend import check_extend, check_extendable, extend, following_class
from framefleet.pipeline.recipes.guidance import open_guidance
from framefleet.pipeline.recipes.keyframes import (
    check_keyframes,
    keyframe_class,
    keyframes,
    text_to_keyframes_to_video,
)
from framefleet.pipeline.request import Request

Function = TypeVar("Function", bound=Callable[..., Any])
_BATCHED = "__framefleet_batched__"


def recipe(*, batched: bool) -> Callable[[Function], Function]:
    """Say that rows of a recipe can be rendered together: `@framefleet.recipe(batched=True)`.

    Without it they are rendered one at a time. batched: the recipe changes nothing that outlives its call or
    that other rows share: networks, modules, torch's settings. Audits watch whether that is so.
    """

    def decorate(function: Function) -> Function:
        setattr(function, _BATCHED, batched)
        return function

    return decorate


_Problems = Iterable[tuple[str, Refused]]  # the argument, and why a row cannot be rendered with it


_parameters_of = functools.cache(parameters_of)  # asked for every row


def _models_own(class_name: str, configs: Configs) -> str:
    return class_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A named function `(pipe, request) -> frames`.

    It may have further parameters with defaults: a row gives them as it gives the pipeline's arguments.
    """

    name: str
    function: Callable[..., Any]
    # SHA-256 of its source file; None for framefleet's own, which the version covers.
    digest: str | None = None
    is_batched: bool = True  # its rows may be rendered together; a user's says so, see `framefleet.recipe`
    needs: tuple[str, ...] = ()  # arguments without which no row can be rendered
    makes: tuple[str, ...] = ()  # arguments of the pipeline that it makes itself
    # From the recipe's own arguments and those of the pipeline, to what is wrong between them.
    check: Callable[[Mapping[str, Any], Mapping[str, Any]], _Problems] | None = None
    # From a model's class and configs, model_index.json as "index", to the class whose call takes a row's
    # arguments. Raises RecipeError when the recipe cannot render with the model.
    pipeline: Callable[[str, Configs], str] = _models_own
    # From the same to the class that continues from its frames, if any.
    then: Callable[[str, Configs], str | None] | None = None
    # The argument that says how many frames of the row's video are rendered over, if any.
    cut_to: str | None = None

    @property
    def is_own(self) -> bool:
        """Whether it is the function of whoever runs the job."""
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
        """Call the recipe; arguments of its own are handed to it and taken out of the request's.

        Schedules of guidance become the objects that follow them. Raises RecipeError for `problems`.
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
        except BaseException as error:  # as of sys.exit(): it is to end the row, not the process
            # Ctrl-C interrupts the main thread alone, and workers render on another.
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise
            raise RecipeError(
                f"the recipe raised {type(error).__name__}: {message_of(error)}", "raise an Exception"
            ) from error


def generate(pipe: Any, request: Request) -> Any:
    """Call the pipeline once; return its output object, with frames as floats in [0, 1].

    What it draws without the generator comes from the global ones of torch, NumPy and Python, which are at
    the row's seed: the frames are those of a script that seeds these three before the call.
    """
    return pipe(**request.arguments, generator=request.generator(), output_type="np")


def _refined(class_name: str, configs: Configs) -> str:
    refining_class(class_name, configs)  # raises when there is none
    return class_name


def _built_in(function: Callable[..., Any], *needs: str, **more: Any) -> Recipe:
    return Recipe(name=function.__name__, function=function, needs=needs, **more)


_ON_IMAGE = functools.partial(conditioned_class, "image")
_ON_VIDEO = functools.partial(conditioned_class, "video")
_KEYFRAMES: dict[str, Any] = {"check": check_keyframes, "pipeline": keyframe_class}
_ENDS = ("image", "last_image")
_RECIPES = (
    _built_in(generate),
    _built_in(image_to_video, "image", pipeline=_ON_IMAGE),
    _built_in(video_to_video, "video", pipeline=_ON_VIDEO, cut_to="num_frames"),
    _built_in(text_to_image_to_video, "image_model", "height", "width", makes=("image",), pipeline=_ON_IMAGE),
    _built_in(refine, "height", "width", check=check_refine, pipeline=_refined, then=refining_class),
    _built_in(extend, "duration_s", check=check_extend, pipeline=check_extendable, then=following_class),
    _built_in(keyframes, "duration_s", **_KEYFRAMES),
    _built_in(text_to_keyframes_to_video, "duration_s", "keyframe_model", makes=_ENDS, **_KEYFRAMES),
)
BUILT_IN = {recipe.name: recipe for recipe in _RECIPES}


def find_recipe(name: str, folder: str | None = None) -> Recipe:
    """Return a built-in recipe, or import `module:function`.

    folder: where its module may be, e.g. that of the job file; and in the current folder. Only for names of
    those who run the job: importing a module runs it. Raises RecipeError when there is none, or it does not
    take `(pipe, request)`.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    if not name.partition(":")[2]:
        fix = either(did_you_mean(name, BUILT_IN), "name yours as module:function")
        raise RecipeError(f"there is no recipe {name!r}", fix)
    return _recipe_of(name, named_function(name, folder=folder))


def recipe_of_row(name: str, own: Recipe) -> Recipe:
    """Return the recipe that a row names: framefleet's, or one of the module of the job's own.

    A table is not trusted, so nothing is imported, and what the module itself imported is not of it. Raises
    RecipeError for every other name.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    if name == own.name:
        return own
    of_job, colon, _ = own.name.partition(":")
    module_name, _, function_name = name.partition(":")
    if not colon or module_name != of_job:
        own_module = f"{of_job}:FUNCTION" if colon else "set the job's `recipe` to MODULE:FUNCTION first"
        raise RecipeError(
            f"recipe {shown(name)} is not of a module that the job names",
            f"use one of {', '.join(sorted(BUILT_IN))}, or {own_module}",
        )
    module = sys.modules.get(of_job)
    names = vars(module) if module else {}  # and no getattr, which a module may answer with code of its own
    function: Any = names.get(function_name)
    is_public = inspect.isfunction(function) and not function_name.startswith("_")
    if not is_public or inspect.unwrap(function).__globals__ is not names:
        raise RecipeError(
            f"recipe {shown(name)}: {of_job} defines no such public function",
            "check the spelling; what it only imports is not meant for rows",
        )
    return _recipe_of(name, function)


def _recipe_of(name: str, function: Callable[..., Any]) -> Recipe:
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise RecipeError(
            f"recipe {name!r} takes {inspect.signature(function)}, not (pipe, request)",
            "give it these two parameters, and a default to every other one",
        ) from None
    digest, is_batched = source_digest(function), getattr(function, _BATCHED, False)
    return Recipe(name=name, function=function, digest=digest, is_batched=is_batched)


class KnownRecipes(dict[str, Recipe]):
    """Recipes by name. RecipeError for a name that may not be given, or that nothing has."""

    def __init__(self, own: Mapping[str, Recipe] | None) -> None:
        """own: all besides framefleet's; None: any `module:function`, imported when it is asked for."""
        super().__init__(own or {})
        self._may_import = own is None

    def __missing__(self, name: str) -> Recipe:
        if not self._may_import and name not in BUILT_IN:
            raise RecipeError(f"recipe {name!r} is not one of this renderer's", "give it as `recipes`")
        return self.setdefault(name, find_recipe(name))


def classes_called(recipe: Recipe, spec: PipelineSpec) -> list[type]:
    """Return the pipelines of diffusers that `recipe` calls on this model."""
    first = recipe.pipeline(spec.class_name, spec.configs)
    then = recipe.then(spec.class_name, spec.configs) if recipe.then else None
    return [class_named(name) for name in dict.fromkeys((first, then)) if name]


def spec_for(recipe: Recipe, spec: PipelineSpec) -> PipelineSpec:
    """Return the spec of the pipeline that `recipe` calls, over the model's components, with rows' arguments.

    spec: of the model. Raises RecipeError when the recipe cannot render with it.
    """
    class_name = recipe.pipeline(spec.class_name, spec.configs)
    return spec if class_name == spec.class_name else spec_of(class_name, spec.configs)


def frames_read(recipe: Recipe, spec: PipelineSpec, arguments: Mapping[str, Any]) -> int | None:
    """Return how many frames of its video a row reads, from the first on; None where it reads all.

    spec: of the model. A pipeline that takes the number itself is given the whole video.
    """
    if recipe.cut_to is None or recipe.cut_to in spec_for(recipe, spec).parameters:
        return None
    return arguments.get(recipe.cut_to)


_FIX = "render rows of each in a process of its own, as `framefleet render` does"
_in_this_process: set[str] = set()  # users' recipes of which any renderer has taken rows


class RecipeSet:
    """What one renderer renders rows of: one of a user's recipes, or those of framefleet."""

    def __init__(self) -> None:
        self._name: str | None = None
        self.own: Recipe | None = None  # that of a user's, if it is one

    @property
    def are_batched(self) -> bool:
        """Whether rows change nothing that others share, as far as their recipe says."""
        return self.own is None or self.own.is_batched

    def check(self, recipe: Recipe) -> None:
        """Take a row of a recipe. Raises RecipeError where the renderer has taken rows of another set.

        Warns where another renderer of this process has run a user's recipe: it may have left something.
        """
        name = recipe.name if recipe.is_own else ""
        if name == self._name:
            return
        if self._name is not None:
            raise RecipeError(
                f"this renderer has rows of {_title(self._name)}, and renders none of {_title(name)}, "
                "as a recipe of yours may leave something behind in its process",
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
