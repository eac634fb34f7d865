"""Counts what networks compute, what is read, and what is converted on a renderer's thread.

Below all that a renderer puts around networks: methods of classes are replaced before a model is loaded.
"""

from __future__ import annotations

import functools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from diffusers.image_processor import VaeImageProcessor
from diffusers.video_processor import VideoProcessor
from torch import Tensor, nn

from framefleet.cluster.worker.worker import Worker
from framefleet.pipeline.hooks.adapters import RowAdapters, working_rows
from framefleet.pipeline.hooks.tree import flatten
from framefleet.pipeline.model.model import TEXT_ENCODERS
from framefleet.pipeline.model.options.offload import modules_of
from framefleet.pipeline.model.specs.model_index import is_denoiser
from framefleet.pipeline.outputs.frames import frames as frames_module
from framefleet.pipeline.render.fused.calls import digest_of
from framefleet.pipeline.render.renderer import Renderer

# What makes arrays of a decoder's tensors, and pixels of arrays.
_CONVERSIONS = (
    (VaeImageProcessor, "postprocess"),
    (VideoProcessor, "postprocess_video"),
    (frames_module, "to_pictures"),
    (frames_module, "_to_uint8"),
)


@dataclass(slots=True)
class Calls:
    """What was counted. forwards: of rows, however many share one. conversions: on a thread that renders,
    after the last forward of their row.
    """

    texts: list[bytes] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)
    num_forwards: int = 0
    num_steps: int = 0  # of noise schedulers
    num_decodes: int = 0
    num_loads: int = 0
    _since_forward: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def num_conversions(self) -> int:
        return sum(self._since_forward.values())

    def clear(self) -> None:
        """Begin anew."""
        self.texts.clear()
        self.pictures.clear()
        self._since_forward.clear()
        self.num_forwards = self.num_steps = self.num_decodes = self.num_loads = 0


class Meter:
    """Counts in a block. pipes: whose classes are counted."""

    def __init__(self, *pipes: Any) -> None:
        self.calls = Calls()
        self._lock = threading.Lock()
        self._rows: list[RowAdapters] = []  # so that none has the place of another in memory
        self._threads: set[int] = set()
        self._methods: dict[tuple[type, str], Callable[..., None]] = {}
        for pipe in pipes:
            for name, network in modules_of(pipe, ("",)).items():
                self._methods |= self._counted(name, network)
            if scheduler := getattr(pipe, "scheduler", None):
                self._methods[type(scheduler), "step"] = self._step

    @contextmanager
    def counting(self) -> Iterator[Calls]:
        """Count until the block ends."""
        with ExitStack() as stack:
            for (kind, name), count in self._methods.items():
                stack.enter_context(_replaced(kind, name, count))
            for owner, name in _CONVERSIONS:
                stack.enter_context(_replaced(owner, name, self._convert))
            stack.enter_context(_replaced(Renderer, "step", self._render))
            stack.enter_context(_replaced(Worker, "_load", self._load))
            yield self.calls

    def _counted(self, name: str, network: nn.Module) -> Mapping[tuple[type, str], Callable[..., None]]:
        kind = type(network)
        if is_denoiser(name):
            return {(kind, "forward"): self._forward}
        if name.startswith(TEXT_ENCODERS):
            return {(kind, "forward"): self._encode_text}
        able = {"encode": self._encode_picture, "decode": self._decode}
        return {(kind, method): count for method, count in able.items() if hasattr(network, method)}

    def _forward(self, _: Any, *args: Any, **kwargs: Any) -> None:
        with self._lock:
            self.calls.num_forwards += len(next(iter(_tensors(args, kwargs))))
            self._rows += working_rows()
            for row in working_rows():
                self.calls._since_forward.pop(id(row), None)

    def _step(self, *_: Any, **__: Any) -> None:
        self.calls.num_steps += 1

    def _encode_text(self, _: Any, *args: Any, **kwargs: Any) -> None:
        self.calls.texts.append(_digest(args, kwargs))

    def _encode_picture(self, _: Any, *args: Any, **kwargs: Any) -> None:
        self.calls.pictures.append(_digest(args, kwargs))

    def _decode(self, *_: Any, **__: Any) -> None:
        self.calls.num_decodes += 1

    def _render(self, *_: Any, **__: Any) -> None:
        self._threads.add(threading.get_ident())

    def _load(self, *_: Any, **__: Any) -> None:
        self.calls.num_loads += 1

    def _convert(self, *_: Any, **__: Any) -> None:
        if threading.get_ident() in self._threads:
            with self._lock:
                self.calls._since_forward[id(next(iter(working_rows()), None))] += 1


def _tensors(args: Any, kwargs: Any) -> Iterator[Tensor]:
    return (leaf for leaf in flatten((args, kwargs))[0] if isinstance(leaf, Tensor))


def _digest(args: Any, kwargs: Any) -> bytes:
    return b"".join(map(digest_of, _tensors(args, kwargs)))


@contextmanager
def _replaced(owner: Any, name: str, count: Callable[..., None]) -> Iterator[None]:
    """Count each call of a function or method that returns; of a renderer, each that begins."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def counted(*args: Any, **kwargs: Any) -> Any:
        if owner is Renderer:
            count(*args, **kwargs)
            return original(*args, **kwargs)
        output = original(*args, **kwargs)
        count(*args, **kwargs)
        return output

    with mock.patch.object(owner, name, counted):
        yield
