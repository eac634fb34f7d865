"""Renderers for tests that compare rows with plain calls themselves: an audit would put wrong rows right."""

from __future__ import annotations

from typing import Any

from framefleet import Audit, Batching, Clip, Model, Renderer, Request

GROWING = Batching(min_gain=0)  # forwards of every size are in use


def unaudited(model: Model, batching: Batching = GROWING, **more: Any) -> Renderer:
    """Return a renderer that renders no row again. more: of `Renderer`."""
    return Renderer(model, batching, audit=Audit(every=0), **more)


def clips_in_order(renderer: Renderer, rows: list[Request]) -> list[Clip]:
    """Render rows, whose seeds differ, and return their clips in the order of the rows."""
    clips = {}
    for outcome in renderer.render(rows, progress=False):
        assert isinstance(outcome, Clip), outcome.traceback
        clips[outcome.request.seed] = outcome
    return [clips[row.seed] for row in rows]
