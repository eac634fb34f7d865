"""A pipeline without weights in, the same out with networks that answer zeros of the right shape, at once.

To the pipeline every tensor is on the CPU, so that schedulers, generators and masks work with real values. A
network's call goes through its own code on the meta device, where shapes are computed and nothing else, and
comes back as zeros. Not covered: networks that look at values (how many tokens a mask leaves). Files that a
row names are grey pictures and silence.
"""

from __future__ import annotations

import copy
import tempfile
import wave
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.outputs.media.media import encode
from framefleet.pipeline.outputs.media.media_settings import Media

_Tensors = list[tuple[dict[str, Tensor | None], str, Tensor]]  # where each stands, and what is to stand there
_SECONDS, _FPS, _SAMPLE_RATE = 2, 24, 32_000  # of the references that are videos or sounds


class Decoded(BaseException):
    """The autoencoder's decoder took what the pipeline made, which is as far as a probe goes."""


def hollow(pipe: Any) -> None:
    """Let every network of a blank pipeline (`blank_pipeline`) compute shapes alone."""
    for network in {id(part): part for part in pipe.components.values()}.values():
        if isinstance(network, nn.Module):
            _hollow(network.eval())


def _hollow(network: nn.Module) -> None:
    meta = _meta(network)
    for tensors, name, tensor in meta:
        if tensors[name] is None or tensors[name].is_meta:  # type: ignore[union-attr]
            # Without memory: all of it is the same zero. What calls a layer directly gets zeros, too.
            zero = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
            tensors[name] = (
                nn.Parameter(zero, requires_grad=False) if isinstance(tensor, nn.Parameter) else zero
            )
    is_autoencoder = hasattr(network, "decode")
    for name in ("encode", "decode") if is_autoencoder else ("forward",):
        if call := getattr(network, name, None):
            object.__setattr__(network, name, _Shapes(call, meta, ends=name == "decode"))


def _meta(network: nn.Module) -> _Tensors:
    """Return a twin on the meta device for every parameter and buffer."""
    twins: _Tensors = []
    for part in network.modules():
        places: list[Any] = [part._parameters, part._buffers]
        for tensors in places:
            twins += [
                (tensors, name, tensor.to("meta")) for name, tensor in tensors.items() if tensor is not None
            ]
    return twins


class _Shapes:
    """A method of a network that is called on the meta device. Calls of shapes that it knows cost nothing."""

    def __init__(self, call: Callable[..., Any], meta: _Tensors, *, ends: bool) -> None:
        self._call, self._meta, self._ends = call, meta, ends
        self.__wrapped__ = call  # what reads the signature of `forward` reads the network's
        self._known: dict[Hashable, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, structure = flatten((args, kwargs))
        # What decides shapes. Two of equal text may differ, but not in shapes.
        key = (
            structure,
            tuple(
                (tuple(leaf.shape), str(leaf.dtype))
                if isinstance(leaf, Tensor)
                else f"{type(leaf)} {leaf!r:.200}"
                for leaf in leaves
            ),
        )
        if key not in self._known:
            as_meta = [leaf.to("meta") if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            positional, by_keyword = unflatten(structure, as_meta)
            with _standing(self._meta), torch.device("meta"), _NoValues(), _all_nonzero():
                self._known[key] = self._call(*positional, **by_keyword)
        if self._ends:
            raise Decoded
        return _zeros(self._known[key])


@contextmanager
def _standing(tensors: _Tensors) -> Iterator[None]:
    """Let tensors stand in their places while the block runs."""
    before = [owner[name] for owner, name, _ in tensors]
    try:
        for owner, name, tensor in tensors:
            owner[name] = tensor
        yield
    finally:
        for (owner, name, _), own in zip(tensors, before, strict=True):
            owner[name] = own


def _all_nonzero() -> Any:
    """Let a mask leave all tokens: how many it does decides shapes, and meta tensors do not know."""
    config: Any = import_module("torch.fx.experimental._config")
    return config.patch(meta_nonzero_assume_all_nonzero=True)


class _NoValues(TorchFunctionMode):
    """Answers no to questions about the values of a mask: libraries ask whether they can do without it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        asks = func in (Tensor.__bool__, Tensor.item) and args[0].is_meta
        if asks and args[0].dtype == torch.bool:
            return False
        return func(*args, **(kwargs or {}))


def _zeros(answer: Any) -> Any:
    """Return what a network answered, with new zeros on the CPU for all tensors: they may be changed."""
    leaves, structure = flatten(answer)
    return unflatten(structure, [_zeros_of(leaf) for leaf in leaves])


def _zeros_of(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return torch.zeros(leaf.shape, dtype=leaf.dtype)
    if isinstance(getattr(leaf, "__dict__", None), dict) and not isinstance(leaf, type):
        own = copy.copy(leaf)  # a distribution of latents, which holds its tensors as attributes
        for name, value in vars(leaf).items():
            if isinstance(value, Tensor):
                setattr(own, name, _zeros_of(value))
        return own
    return leaf


def grey(value: Mapping[str, Any], size: tuple[int, int]) -> Any:
    """Return what a row's image or video is opened as. size: (width, height) in pixels."""
    pictures = [Image.new("RGB", size, "grey") for _ in range(value.get("num_frames", 1))]
    return pictures if "num_frames" in value else pictures[0]


def grey_reference(made: Any, size: tuple[int, int]) -> Any:
    """Return a reference of this class, opened from a file as rows have it. See `reference_classes`."""
    with tempfile.NamedTemporaryFile(suffix=".wav" if made.kind == "audio" else "") as file:
        if made.kind == "audio":
            with wave.open(file, "wb") as sound:
                sound.setparams((1, 2, _SAMPLE_RATE, 0, "NONE", ""))
                sound.writeframes(bytes(2 * _SECONDS * _SAMPLE_RATE))
        else:
            media = Media(format="png" if made.kind == "image" else "mkv")
            frames = np.stack([np.asarray(grey({}, size))] * (1 if made.kind == "image" else _SECONDS * _FPS))
            file.write(encode(frames, media=media, fps=_FPS, metadata={}))
        file.flush()
        return made.from_file(file.name)
