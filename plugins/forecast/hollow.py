"""From rows of distinct shapes to those that the model's pipeline refuses or fails on when it is called.

Sizes and lengths are known by rules (model/specs/pipeline_call.py, rows/tables/limits.py); what no rule says
shows when the pipeline itself is called, over networks without weights (plugins/memory/blank_call.py).
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

MAX_SHAPES = 256  # of a table: sizes are few, and to call a pipeline for thousands would take an hour
MAX_ALL_S = 900.0


@dataclass(slots=True)
class Shapes:
    """The first row of each distinct shape of a table. num_others: rows of further shapes."""

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
    """Call the pipeline once for each shape. folder: holds the model's configs, which are `files`.

    recipes: the folder where modules of the user's own recipes may be.
    """
    calls = BlankCalls(folder, files, recipes=recipes)
    probed = list(_probed(shapes, spec, calls))
    others = [f"{count_text(shapes.num_others, 'row')} of further shapes"] if shapes.num_others else []
    return Probed(
        refused=tuple(one for one in probed if isinstance(one, tuple)),
        unknown=tuple(dict.fromkeys([one for one in probed if isinstance(one, str)] + others)),
    )


def _probed(shapes: Shapes, spec: PipelineSpec, calls: BlankCalls) -> Iterator[tuple[str, str] | str]:
    """Yield (problem, fix) of a shape that is refused, or a line on one that cannot be probed."""
    started = time.monotonic()
    with closing(calls):
        for position, (index, request) in enumerate(shapes.first.values()):
            if time.monotonic() - started > MAX_ALL_S:
                left = len(shapes.first) - position
                yield f"{count_text(left, 'shape')}: all together take more than {MAX_ALL_S:.0f} s"
                return
            models = [name for name, value in request.arguments.items() if is_model(value)]
            if models:
                yield f"row {index} cannot be probed: it calls a second model, its {models[0]}"
            elif objection := calls.call(request).objection:
                # The row with the model's own values for all that decides shapes.
                defaults = spec.defaults()
                arguments = {
                    name: value for name, value in request.arguments.items() if not decides_shape(value)
                }
                own = replace(
                    request, arguments=arguments | {n: v for n, v in defaults.items() if decides_shape(v)}
                )
                alone = not objection.is_limit and calls.call(own).objection is None
                why = "" if objection.is_limit else "even with the model's own values the pipeline fails: "
                unknown = f"row {index} cannot be probed: {why}{objection.text}"
                yield _refusal(index, request, own, objection.text) if alone else unknown


def _refusal(index: int, request: Request, own: Request, said: str) -> tuple[str, str]:
    """Return what is wrong with a row, if the same row with the model's own values is fine."""
    differing = {name: value for name, value in request.arguments.items() if value != own.arguments.get(name)}
    current = [f"{name} {own.arguments[name]}" for name in differing if name in own.arguments]
    others = [name for name in differing if name not in own.arguments]
    fix = [f"use {', '.join(current)}"] * bool(current) + [f"leave out {', '.join(others)}"] * bool(others)
    wanted = ", ".join(f"{name} {shown(value)}" for name, value in differing.items())
    return f"row {index}: with {wanted}, the pipeline says: {said}", ", and ".join(fix)
