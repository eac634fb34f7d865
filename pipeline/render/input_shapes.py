"""From rows to what decides the shapes of their tensors; and one row of each such shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.request import Request, inputs_in

MAX_SHAPES = 256  # of a table: sizes are few, and to call a pipeline for thousands would take an hour


@dataclass(slots=True)
class Shapes:
    """The distinct shapes of a table's rows, each with the first row that has it.

    num_others: rows of further shapes, which are not kept.
    """

    first: dict[str, tuple[int, Request]] = field(default_factory=dict)
    num_others: int = 0

    def add(self, index: int, request: Request) -> None:
        shape = input_shape(request)
        if shape not in self.first and len(self.first) == MAX_SHAPES:
            self.num_others += 1
        else:
            self.first.setdefault(shape, (index, request))


def input_shape(request: Request) -> str:
    """Return one text for all rows whose tensors have equal shapes: numbers of frames, but no prompts."""
    arguments = {name: _in_shape(value) for name, value in request.arguments.items()}
    return canonical_json([arguments, request.scheduler, request.recipe])


def _in_shape(value: Any) -> Any:
    if pictures := inputs_in(value):
        return [picture.get("num_frames", 1) for picture in pictures]
    if isinstance(value, float):
        return value > 1  # guidance is on or off
    return value if decides_shape(value) else ""


def decides_shape(value: Any) -> bool:
    return isinstance(value, int | list) and not inputs_in(value)
