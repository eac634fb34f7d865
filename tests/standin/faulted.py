"""In: a point of a row's way and what goes wrong there. Out: which rows were exact, begun again, and blamed.

Run in a process of its own: `python -m tests.standin` prints the table of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

from framefleet import Audit, Batching, Clip, Failure, Model, Renderer, Request
from framefleet.cluster.worker.blame import culprit_of
from framefleet.pipeline.outputs.frames import frames as frames_module
from framefleet.pipeline.render.checkpoints import checkpoint
from framefleet.pipeline.render.fused import exact, forwards, pins
from framefleet.pipeline.render.row_queue import RenderRow, with_frames
from tests.standin.gpu import ILLEGAL, out_of_memory
from tests.standin.tensor import gpus
from tests.tiny import SMALLEST

Fault = Literal["memory", "sticky"]
NUM_ROWS = 2  # a forward of both is proven once for each fault
MAX_STEPS = 400  # of a renderer, after which it is taken to hang


@dataclass(frozen=True, slots=True)
class Point:
    """A function or method that is called on the way. owner: what has it, of a model."""

    name: str
    owner: Callable[[Model], Any]
    attribute: str


POINTS = (
    Point("encode", lambda model: model.pipe.text_encoder, "forward"),
    Point("join", lambda _: pins, "join_calls"),
    Point("forward", lambda model: model.pipe.transformer, "forward"),
    Point("split", lambda _: pins, "part"),
    Point("probe", lambda _: exact, "_is_proven"),
    Point("holders", lambda _: forwards, "with_holders"),
    Point("journal copy", lambda _: checkpoint, "_copied"),
    Point("decode", lambda model: model.pipe.vae, "decode"),
    Point("frame conversion", lambda _: frames_module, "_to_uint8"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What became of rows. met: how often the point was come to; again: rows begun more than once."""

    met: int
    exact: int
    wrong: int
    again: int
    blamed: tuple[str, ...]
    raised: str = ""

    @property
    def is_fine(self) -> bool:
        return self.met > 0 and not self.wrong and not self.raised


def rows() -> list[Request]:
    arguments = {**SMALLEST["wan"], "prompt": "a red ball", "num_inference_steps": 2}
    return [Request(arguments=arguments, seed=seed) for seed in range(NUM_ROWS)]


def plain(model: Model) -> dict[str, str]:
    """Return the digests of all rows, each rendered on its own."""
    renderer = Renderer(model, Batching(max_rows=1, remember=False), audit=Audit(every=0))
    return {
        str(clip.request.seed): clip.frames_sha256
        for clip in renderer.render(rows())
        if isinstance(clip, Clip)
    }


def faulted(model: Model, point: Point, fault: Fault, expected: dict[str, str]) -> Seen:
    """Render all rows, with one fault as the second call at the point is made."""
    begun: list[str] = []
    blamed: list[str] = []
    clips: dict[str, str] = {}
    raised = ""
    with _failing(point, fault, model) as met:
        try:
            for outcome in _outcomes(model, begun):
                error = outcome if isinstance(outcome, Exception) else None
                if isinstance(outcome, Clip):
                    clips[outcome.row_id] = outcome.frames_sha256
                blamed += [culprit_of(error).blame] if error else []
                if gpus.sticky and blamed:
                    break  # its process is ended here
        except Exception as error:
            raised = f"{type(error).__name__}: {error}".splitlines()[0]
    right = sum(expected[row_id] == digest for row_id, digest in clips.items())
    again = len(begun) - len(set(begun))
    return Seen(
        met=len(met), exact=right, wrong=len(clips) - right, again=again, blamed=tuple(blamed), raised=raised
    )


def _outcomes(model: Model, begun: list[str]) -> Iterator[Clip | Exception]:
    """Yield what became of each row; fill `begun` with those that start."""
    batching = Batching(min_gain=0, max_rows=NUM_ROWS, remember=False)
    renderer = Renderer(model, batching, audit=Audit(every=0))
    start = renderer._start

    def counted(row: RenderRow) -> None:
        begun.append(row.row_id)
        start(row)

    renderer._start = counted  # type: ignore[method-assign]
    for row in rows():
        renderer.submit(row, str(row.seed))
    for _ in range(MAX_STEPS):
        for outcome in map(with_frames, renderer.step()):
            if isinstance(outcome, Clip | Failure):
                yield outcome if isinstance(outcome, Clip) else outcome.error
        if not renderer.num_active:
            return


@contextmanager
def _failing(point: Point, fault: Fault, model: Model) -> Iterator[list[None]]:
    owner, met = point.owner(model), list[None]()
    original = getattr(owner, point.attribute)

    def called(*args: Any, **kwargs: Any) -> Any:
        met.append(None)
        if len(met) == 2:
            if fault == "memory":
                raise out_of_memory()
            gpus.sticky = ILLEGAL
            raise torch.AcceleratorError(ILLEGAL)
        return original(*args, **kwargs)

    vars(owner)[point.attribute] = called  # of a module, in front of its class's
    try:
        yield met
    finally:
        gpus.sticky = None
        vars(owner).pop(point.attribute, None)
        if getattr(owner, point.attribute, None) != original:
            vars(owner)[point.attribute] = original
