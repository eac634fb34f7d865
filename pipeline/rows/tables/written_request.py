"""From a request written by hand to one that can be rendered, by the same checks as a table's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import pyarrow as pa

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.model.loras.lora import Lora
from framefleet.pipeline.model.specs.refusal import shown
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.recipes.recipe_spec import spec_for
from framefleet.pipeline.recipes.second_model import SecondModel
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.tables.column_checks import argument_meant
from framefleet.pipeline.rows.tables.row_inputs import Finder
from framefleet.pipeline.rows.tables.row_plan import meanings, plan_rows, required_arguments
from framefleet.pipeline.rows.tables.rows import InvalidRow


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
    """Return the request with all arguments resolved. Raises TableError when it cannot be rendered as asked.

    finder: opens the images and videos that it names. loras, second_models: those that it may name. index:
        its number, for the message.
    """
    called = spec_for(recipe, spec)
    is_argument = "fps" in called.settable()  # some have an own, in a table too
    cells: dict[str, Any] = {**request.arguments, "seed": request.seed, "scheduler": request.scheduler}
    cells |= {} if is_argument else {"fps": request.fps}
    known = meanings(called, recipe)
    for name in sorted(cells.keys() - known.keys() - called.parameters.keys()):
        raise TableError(
            f"request {index}: {called.class_name} takes no argument {name!r}", argument_meant(name, known)
        )
    for name in required_arguments(called, recipe):
        if cells.get(name) is None and name not in called.defaults():
            raise TableError(f"request {index} has no {name!r}", f"add it to `arguments`: {{{name!r}: ...}}")
    table = _table_of({name: cell for name, cell in cells.items() if cell is not None}, index)
    try:
        plan = plan_rows(
            table.schema, called, recipe=recipe, finder=finder, loras=loras, second_models=second_models
        )
    except TableError as error:
        given = shown(dict(request.arguments))
        problem, fix = error.problem.replace("column ", ""), error.fix.partition(", or rename")[0]
        raise TableError(
            f"request {index}, {given}: {problem}", fix.replace("write the column as", "give")
        ) from None
    (row,) = plan.rows(index, table)
    if isinstance(row, InvalidRow):
        raise TableError(*row.messages()[0])
    if plan.carried.names:
        raise TableError(
            f"row {index}: {spec.class_name} takes no {', '.join(plan.carried.names)}", "check the spelling"
        )
    if is_argument and request.fps is not None:
        return replace(row.request, fps=request.fps)
    return row.request


def _table_of(cells: Mapping[str, Any], index: int) -> pa.RecordBatch:
    """Return a table of one row. Raises TableError for a cell that no table holds."""
    plain = {name: str(cell) if isinstance(cell, PurePath) else cell for name, cell in cells.items()}
    for name, cell in plain.items():
        try:
            pa.array([cell])
        except OverflowError:
            raise TableError(f"row {index}: {name} is {shown(cell)}", "use a number of 64 bits") from None
        except UnicodeEncodeError as error:
            raise TableError(
                f"row {index}: {name} is not a text: {error.reason}", "use whole characters"
            ) from None
        except pa.ArrowException:
            raise TableError(
                f"row {index}: {name} is of type {type(cell).__name__}",
                "requests hold numbers and text; give an image or a video as its path or URL",
            ) from None
    return pa.RecordBatch.from_pylist([plain])
