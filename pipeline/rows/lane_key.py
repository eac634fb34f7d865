"""From a row to the lane it is rendered in: the rows that may share a worker's process.

A process that has run a user's code renders nothing else. So a lane is a model and a set of recipes: those of
framefleet together, and each of a user's for itself, as functions of one module may spoil each other's rows,
too.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from framefleet.pipeline.request import Request


class LaneKey(NamedTuple):
    """model: its name, of several. recipe: the user's; "" for framefleet's own."""

    model: str = ""
    recipe: str = ""

    def __str__(self) -> str:
        return ", ".join(part for part in self if part)

    @property
    def title(self) -> str:
        """What people call it."""
        return ", ".join(filter(None, [self.model, self.recipe or "framefleet's own recipes"]))


def lane_of(request: Request) -> LaneKey:
    return lane_named(request.model, request.recipe)


@functools.cache  # asked for every row
def lane_named(model: str, recipe: str) -> LaneKey:
    """recipe: as a row names it; a user's is `module:function`."""
    return LaneKey(model, recipe if ":" in recipe else "")
