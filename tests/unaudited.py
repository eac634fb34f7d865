"""Renderers for tests that compare rows with plain calls themselves: an audit would put wrong rows right.

And what such tests do with models and renderers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from framefleet import Audit, Batching, Clip, Model, Renderer, Request, load_model
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.outputs.clips import Outcome
from tests.tiny import tiny

GROWING = Batching(min_gain=0)  # forwards of every size are in use


def unaudited(model: Model, batching: Batching = GROWING, **more: Any) -> Renderer:
    """Return a renderer that renders no row again. more: of `Renderer`."""
    return Renderer(model, batching, audit=Audit(every=0), **more)


@functools.cache
def loaded(name: str, dtype: Any = "fp32") -> Model:
    """Return a tiny model that tests share, and leave as it is."""
    return load_model(tiny(name), dtype=dtype)


@contextmanager
def calls_of(modules: Mapping[str, Any], seen: Callable[..., Any] | None = None) -> Iterator[list[Any]]:
    """Note each forward of these in a block: its module's name, or what `seen` says of its arguments."""
    calls: list[Any] = []

    def note(name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        calls.append(seen(*args, **kwargs) if seen else name)
        return forward(*args, **kwargs)

    with intercept(modules, note):
        yield calls


def all_outcomes(renderer: Renderer) -> list[Outcome]:
    """Render all that was submitted; return what becomes of it."""
    outcomes: list[Outcome] = []
    while renderer.num_active:
        outcomes += renderer.step()
    return outcomes


def clips_in_order(renderer: Renderer, rows: list[Request]) -> list[Clip]:
    """Render rows, whose seeds differ, and return their clips in the order of the rows."""
    clips = {}
    for outcome in renderer.render(rows, progress=False):
        assert isinstance(outcome, Clip), outcome.traceback
        clips[outcome.request.seed] = outcome
    return [clips[row.seed] for row in rows]
