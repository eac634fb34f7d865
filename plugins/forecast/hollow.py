"""Find rows that the model's pipeline refuses or fails on, by calling it once for each shape.

Rules check sizes and lengths (model/specs/pipeline_call.py, rows/tables/limits.py). For other errors, the
pipeline itself is called, with networks without weights (plugins/memory/blank_call.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from framefleet.api.clips import Request, is_model
from framefleet.api.errors import count_text, shown
from framefleet.api.models import PipelineSpec
from framefleet.pipeline.rows.identity import decides_shape, input_shape
from framefleet.plugins.forecast.job_plan import Probed
from framefleet.plugins.memory.blank_call import BlankCalls

MAX_SHAPES = 256  # per table; most have few, and thousands of calls would take an hour
MAX_ALL_S = 900.0


@dataclass(slots=True)
class Shapes:
    """The first row of each shape of a table. num_others: rows of shapes beyond the limit."""

    first: dict[str, tuple[int, Request]] = field(default_factory=dict)
    num_others: int = 0

    def add(self, index: int, request: Request) -> None:
        shape = input_shape(request)
        if shape not in self.first and len(self.first) == MAX_SHAPES:
            self.num_others += 1
        else:
            self.first.setdefault(shape, (index, request))


def probe_shapes(
    shapes: Shapes, spec: PipelineSpec, folder: Path, files: Sequence[str], *, recipes: str | None
) -> Probed:
    """Call the pipeline once for each shape. folder: has the model's configs, listed in `files`.

    recipes: the folder where modules of the user's recipes may be.
    """
    calls = BlankCalls(folder, files, recipes=recipes)
    probed = list(_probed(shapes, spec, calls))
    others = [f"{count_text(shapes.num_others, 'row')} of further shapes"] if shapes.num_others else []
    return Probed(
        refused=tuple(one for one in probed if isinstance(one, tuple)),
        unknown=tuple(dict.fromkeys([one for one in probed if isinstance(one, str)] + others)),
    )


def _probed(shapes: Shapes, spec: PipelineSpec, calls: BlankCalls) -> Iterator[tuple[str, str] | str]:
    """Yield (problem, fix) for each refused shape, and a line for each one that cannot be probed."""
    started = time.monotonic()
    with closing(calls):
        for position, (index, request) in enumerate(shapes.first.values()):
            if time.monotonic() - started > MAX_ALL_S:
                left = len(shapes.first) - position
                yield f"{count_text(left, 'shape')}: the time limit of {MAX_ALL_S:.0f} s is reached"
                return
            models = [name for name, value in request.arguments.items() if is_model(value)]
            if models:
                yield f"row {index} cannot be probed: it calls a second model, its {models[0]}"
            elif objection := calls.call(request).objection:
                # The same row with the model's defaults for everything that affects shapes.
                defaults = spec.defaults()
                arguments = {
                    name: value for name, value in request.arguments.items() if not decides_shape(value)
                }
                own = replace(
                    request, arguments=arguments | {n: v for n, v in defaults.items() if decides_shape(v)}
                )
                alone = not objection.is_limit and calls.call(own).objection is None
                why = "" if objection.is_limit else "the pipeline fails even with the model's defaults: "
                unknown = f"row {index} cannot be probed: {why}{objection.text}"
                yield _refusal(index, request, own, objection.text) if alone else unknown


def _refusal(index: int, request: Request, own: Request, said: str) -> tuple[str, str]:
    """Return (problem, fix) for a row, if the same row with the model's defaults is fine."""
    differing = {name: value for name, value in request.arguments.items() if value != own.arguments.get(name)}
    current = [f"{name} {own.arguments[name]}" for name in differing if name in own.arguments]
    others = [name for name in differing if name not in own.arguments]
    fix = [f"use {', '.join(current)}"] * bool(current) + [f"leave out {', '.join(others)}"] * bool(others)
    wanted = ", ".join(f"{name} {shown(value)}" for name, value in differing.items())
    return f"row {index}: with {wanted}, the pipeline fails: {said}", ", and ".join(fix)
