"""Check requests from Python or from records in the same way as a table's rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import pyarrow as pa

from framefleet.pipeline.errors import Refused, TableError, shown
from framefleet.pipeline.guards.mistakes import expected
from framefleet.pipeline.model.lora import ARGUMENT as LORA, Lora
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.specs.check import check_fps, check_seed
from framefleet.pipeline.model.specs.schedulers import resolve_scheduler
from framefleet.pipeline.model.specs.signature import PLACES, ArgumentKind
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.recipes.catalog import KnownRecipes
from framefleet.pipeline.recipes.recipe import Recipe, spec_for
from framefleet.pipeline.recipes.second_model import SecondModel, SecondModels
from framefleet.pipeline.request import Request, is_input
from framefleet.pipeline.rows.identity import Identity
from framefleet.pipeline.rows.inputs.access import Inputs
from framefleet.pipeline.rows.inputs.survey import InputIndex
from framefleet.pipeline.rows.tables.column_checks import argument_meant
from framefleet.pipeline.rows.tables.limits import late_problems
from framefleet.pipeline.rows.tables.other_words import N, words_of
from framefleet.pipeline.rows.tables.row_plan import check_value, meanings, plan_rows, required_arguments
from framefleet.pipeline.rows.tables.rows import Finder, InvalidRow


def checked(
    request: Request,
    spec: PipelineSpec,
    recipe: Recipe,
    *,
    finder: Finder,
    loras: Mapping[str, Lora] | None = None,
    second_models: Mapping[str, SecondModel] | None = None,
    index: int = 0,
) -> Request:
    """Return the request with all arguments resolved. Raises TableError if it cannot be rendered.

    finder: opens the images and videos that it names. loras, second_models: those that it may name. index:
        its number, for messages.
    """
    called = spec_for(recipe, spec)
    is_argument = "fps" in called.settable()  # some pipelines have their own, also in tables
    cells: dict[str, Any] = {**request.arguments, "seed": request.seed, "scheduler": request.scheduler}
    cells |= {} if is_argument else {"fps": request.fps}
    kinds = {name: kind for name, kind in meanings(called, recipe).items() if name != N}  # it is one row
    for name in sorted(cells.keys() - kinds.keys() - called.parameters.keys()):
        raise TableError(
            f"request {index}: {called.class_name} takes no argument {name!r}", argument_meant(name, kinds)
        )
    for name in required_arguments(called, recipe):
        if cells.get(name) is None and name not in called.defaults():
            raise TableError(f"request {index} has no {name!r}", f"add it to `arguments`: {{{name!r}: ...}}")
    table = _table_of({name: cell for name, cell in cells.items() if cell is not None}, index)
    try:
        models: dict[str, Any] = {"loras": loras, "second_models": second_models}
        plan = plan_rows(table.schema, called, recipe=recipe, finder=finder, **models)
    except TableError as error:
        arguments = shown(dict(request.arguments))
        problem, fix = error.problem.replace("column ", ""), error.fix.partition(", or rename")[0]
        raise TableError(
            f"request {index}, {arguments}: {problem}", fix.replace("write the column as", "use")
        ) from None
    (row,) = plan.rows(index, table)
    if isinstance(row, InvalidRow):
        first = row.problems[0]
        raise TableError(f"request {index}: {first}", first.why.fix)
    if plan.carried.names:
        raise TableError(
            f"request {index}: {spec.class_name} takes no {', '.join(plan.carried.names)}",
            "check the spelling",
        )
    if is_argument and request.fps is not None:
        return replace(row.request, fps=request.fps)
    return row.request


def _table_of(cells: Mapping[str, Any], index: int) -> pa.RecordBatch:
    """Return a table of one row. Raises TableError for a cell that a table cannot hold."""
    plain = {name: str(cell) if isinstance(cell, PurePath) else cell for name, cell in cells.items()}
    for name, cell in plain.items():
        try:
            pa.array([cell])
        except OverflowError:
            raise TableError(f"request {index}: {name} is {shown(cell)}", "use a number of 64 bits") from None
        except UnicodeEncodeError as error:
            problem = f"request {index}: {name} is not a text: {error.reason}"
            raise TableError(problem, "use whole characters") from None
        except pa.ArrowException:
            fix = "requests hold numbers and text; for an image or a video, use its path or URL"
            raise TableError(f"request {index}: {name} is of type {type(cell).__name__}", fix) from None
    return pa.RecordBatch.from_pylist([plain])


def check_again(request: Request, spec: PipelineSpec, recipe: Recipe) -> Request:
    """Check a recorded request again, and return it as its row asked for it. Raises TableError.

    Not covered: its files.
    """
    called = spec_for(recipe, spec)
    problems = [*_wrong_values(request, called, recipe)]
    if not problems:
        scheduler = resolve_scheduler(request.scheduler, called)
        problems = late_problems(called, recipe, request.arguments, fps=request.fps, scheduler=scheduler)
    for name, refused in problems:
        value = shown(request.arguments.get(name, getattr(request, name, None)))
        raise TableError(f"the record's {name} is {value}, but {refused.reason}", refused.fix)
    return replace(request, arguments=called.from_json(request.arguments))


def _wrong_values(request: Request, spec: PipelineSpec, recipe: Recipe) -> Iterator[tuple[str, Refused]]:
    words = words_of(spec, recipe)
    kinds = {name: kind for name, kind in meanings(spec, recipe).items() if name not in words}
    back = "put the record back as it was"
    checked_values: dict[str, Any] = {"seed": check_seed(request.seed)}
    checked_values |= {} if request.fps is None else {"fps": check_fps(request.fps)}
    for name, value in request.arguments.items():
        kind = kinds.get(name)
        if kind is None:
            checked_values[name] = Refused(reason=f"{spec.class_name} does not take it", fix=back)
        elif not _is_of_its_kind(name, value, kind):
            checked_values[name] = Refused(reason="it must have another type", fix=back)
        elif kind not in (*PLACES, "model") and name != LORA:
            checked_values[name] = check_value(name, value, kind, spec)  # type: ignore[arg-type]
    return ((name, checked) for name, checked in checked_values.items() if isinstance(checked, Refused))


def _is_of_its_kind(name: str, value: Any, kind: ArgumentKind) -> bool:
    """Return whether a value is a mapping or a list of media if and only if its argument is one."""
    if kind == "references":
        parts = value if isinstance(value, list) else []
        return bool(parts) and all(is_input(part) and "kind" in part for part in parts)
    if isinstance(value, list) and kind in ("images", "list[image]"):
        return bool(value) and all(map(is_input, value))
    is_mapping = name == LORA or kind in ("image", "video", "images", "model")
    return isinstance(value, Mapping) == is_mapping and kind != "list[image]"


def request_check(
    model: Model, recipes: KnownRecipes, second_models: SecondModels, inputs: Inputs, identity: Identity
) -> Callable[[Request, int], tuple[Request, str]]:
    """Return a function that checks a request for one model, and returns it with its row_id.

    Its arguments are the request and its number, for messages. It raises TableError if the request cannot be
    rendered.
    """
    finder = InputIndex(inputs)
    declared: dict[str, Any] = {"loras": model.settings.loras, "second_models": second_models.declared}

    def check(request: Request, index: int) -> tuple[Request, str]:
        expected(request, Request, f"request {index}", 'use framefleet.Request(arguments={"prompt": ...})')
        recipe = recipes[request.recipe]
        request = checked(request, model.spec, recipe, finder=finder, index=index, **declared)
        return request, identity(request)

    return check
