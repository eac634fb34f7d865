"""Replace the networks of a pipeline without weights by stubs that return zeros of the right shape at once.

The pipeline sees all tensors on the CPU, so that schedulers, generators and masks work with real values.
Calls of a network run its own code on the meta device, which only computes shapes, and return zeros. Bytes of
tensors that are alive at once are counted, without workspaces of kernels and fragmentation. If a network
needs values, such as sizes of pictures, each of its parts is called like this instead. A row's files are
replaced by grey pictures and silence.
"""

from __future__ import annotations

import copy
import inspect
import tempfile
import wave
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.attention import flex_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from framefleet.api.clips import Media, encode
from framefleet.api.errors import FarEnough
from framefleet.pipeline.hooks.tree import flatten, unflatten


class Meter(TorchDispatchMode):
    """Counts the bytes that operations allocate while it is active. peak: most bytes alive at once."""

    def __init__(self, others: Iterable[Tensor]) -> None:
        """others: weights and inputs, which are not counted, as operations may return views of them."""
        super().__init__()  # type: ignore[no-untyped-call]  # torch is only partly typed
        self._others = {tensor.untyped_storage()._cdata for tensor in others}
        self._alive: dict[int, weakref.ref[Any]] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in result if isinstance(result, list | tuple) else (result,):
            if isinstance(leaf, Tensor) and leaf.is_meta:
                storage = leaf.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                if key not in self._others and key not in self._alive:
                    self._alive[key] = weakref.ref(storage, partial(self._free, key, size))
                    self.now += size
                    self.peak = max(self.peak, self.now)
        return result

    def _free(self, key: int, size: int, _: Any) -> None:
        del self._alive[key]
        self.now -= size


@contextmanager
def metered(others: Iterable[Tensor]) -> Iterator[Meter]:
    """Count while the block runs."""
    with torch.no_grad(), without_scores(), Meter(others) as meter:
        yield meter


@contextmanager
def without_scores() -> Iterator[None]:
    """Count attention as GPU kernels do it, which do not store a matrix of scores."""

    def attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        return query.new_zeros((*query.shape[:-1], value.shape[-1]))

    own = F.scaled_dot_product_attention, flex_attention.flex_attention
    F.scaled_dot_product_attention = flex_attention.flex_attention = attention  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention, flex_attention.flex_attention = own


def call_key(args: Any, kwargs: Any) -> tuple[Hashable, ...]:
    """Return a key for the shapes that a call computes. Calls with equal keys have equal shapes."""
    leaves, structure = flatten((args, kwargs))
    return structure, *(
        (tuple(leaf.shape), str(leaf.dtype)) if isinstance(leaf, Tensor) else f"{type(leaf)} {leaf!r:.200}"
        for leaf in leaves
    )


@dataclass(frozen=True, slots=True)
class _Shape:
    shape: tuple[int, ...]
    dtype: torch.dtype


class Repeated:
    """A part of an autoencoder that is called for each tile and frame. Computes equal shapes only once.

    Repeats its changes to list arguments, which are caches of causal convolutions.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call
        self._known: dict[Hashable, tuple[Any, list[Any], int]] = {}
        self.meter: Meter | None = None
        self.__wrapped__ = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        meter = self.meter
        if meter is None:
            return self._call(*args, **kwargs)
        lists = [value for value in (*args, *kwargs.values()) if isinstance(value, list)]
        key = call_key(args, kwargs)
        if key not in self._known:
            before, peak, meter.peak = meter.now, meter.peak, meter.now
            result = self._call(*args, **kwargs)
            self._known[key] = _shapes(result), [_shapes(one) for one in lists], meter.peak - before
            meter.peak = max(meter.peak, peak)
            return result
        shapes, left, more = self._known[key]
        meter.peak = max(meter.peak, meter.now + more)
        for one, content in zip(lists, left, strict=True):
            one[:] = _filled(content)
        return _filled(shapes)


def _shapes(value: Any) -> tuple[Any, Any]:
    leaves, structure = flatten(value)
    return structure, [
        _Shape(tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves
    ]


def _filled(shapes: tuple[Any, Any]) -> Any:
    structure, leaves = shapes
    filled = [
        torch.empty(leaf.shape, dtype=leaf.dtype, device="meta") if isinstance(leaf, _Shape) else leaf
        for leaf in leaves
    ]
    return unflatten(structure, filled)


Peaks = dict[str, dict[str, int]]  # by component and method, the most bytes that a call needs besides weights
_Tensors = list[tuple[dict[str, Tensor | None], str, Tensor]]  # where each stands, and what is to stand there
_SECONDS, _FPS, _SAMPLE_RATE = 2, 24, 32_000  # of the references that are videos or sounds


class Decoded(FarEnough):
    """The autoencoder's decoder accepted the pipeline's latents, where a probe ends."""


def hollow(pipe: Any, *, ends: bool = True) -> Peaks:
    """Make every network of a blank pipeline (`blank_pipeline`) compute only shapes.

    ends: raise `Decoded` when the first latents are decoded. Returns the peaks, which calls update.
    """
    networks = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    names = {id(part): name for name, part in networks.items()}  # one may have two
    peaks: Peaks = {name: {} for name in names.values()}
    for name, calls in peaks.items():
        _hollow(networks[name].eval(), calls, ends=ends)
    return peaks


def _hollow(network: nn.Module, peaks: dict[str, int], *, ends: bool) -> None:
    stub = _Stub(meta=[], peaks=peaks)  # with a twin on the meta device for every parameter and buffer
    for part in network.modules():
        places: list[Any] = [part._parameters, part._buffers]
        for own in places:
            stub.meta += [(own, name, one.to("meta")) for name, one in own.items() if one is not None]
    for tensors, key, tensor in stub.meta:
        if tensors[key] is None or tensors[key].is_meta:  # type: ignore[union-attr]
            # Without memory: all of it is the same zero, for what reads a weight.
            zero = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
            is_weight = isinstance(tensor, nn.Parameter)
            tensors[key] = nn.Parameter(zero, requires_grad=False) if is_weight else zero
    if generate := getattr(network, "generate", None):
        object.__setattr__(network, "generate", partial(_generated, network, generate))
    if not hasattr(network, "decode"):
        for part in network.modules():  # pipelines call layers directly, too
            shapes = _Shapes(part.forward, stub, "forward", has_parts=True)
            object.__setattr__(part, "forward", shapes)
        return
    for half in (getattr(network, "encoder", None), getattr(network, "decoder", None)):
        if isinstance(half, nn.Module):
            stub.repeated.append(Repeated(half.forward))
            object.__setattr__(half, "forward", stub.repeated[-1])
    for name in ("encode", "decode"):
        if call := getattr(network, name, None):
            object.__setattr__(network, name, _Shapes(call, stub, name, ends=ends and name == "decode"))


def _generated(network: Any, own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Generate tokens like a language model that repeats its prompt, since zeros are not text.

    Makes one call with the prompt and the maximum number of new tokens, like the last of many with a cache.
    """
    prompt, most = kwargs.pop("input_ids", None), kwargs.pop("max_new_tokens", None)
    if args or prompt is None or not most or network.config.is_encoder_decoder:
        return own(*args, input_ids=prompt, max_new_tokens=most, **kwargs)
    places = {value for name, value in vars(network.config).items() if name.endswith("_token_id")}
    words = [token for token in prompt[0].tolist() if token not in places]  # without those of pictures
    answer = torch.tensor([(words * (most // len(words) + 1))[:most]]).expand(len(prompt), -1)
    tokens = torch.cat([prompt, answer], dim=1)
    inputs = {"input_ids": tokens, "use_cache": True, "logits_to_keep": 1, **kwargs}
    for name, value in kwargs.items():
        if isinstance(value, Tensor) and value.shape == prompt.shape:  # a mask, or types of tokens
            inputs[name] = torch.cat([value, value[:, -1:].expand(-1, most)], dim=1)
    taken = inspect.signature(network.forward).parameters
    network(**{name: value for name, value in inputs.items() if name in taken})
    return tokens


@dataclass(slots=True)
class _Stub:
    """State shared by the calls of one network. is_called: it was called itself, so shapes are known."""

    meta: _Tensors
    peaks: dict[str, int]
    repeated: list[Repeated] = field(default_factory=list)
    is_called: bool = False

    def note(self, name: str, peak: int) -> None:
        self.peaks[name] = max(self.peaks.get(name, 0), peak)


class _Shapes:
    """A method of a network that runs on the meta device. Calls with known shapes cost nothing."""

    def __init__(
        self, call: Callable[..., Any], stub: _Stub, name: str, *, ends: bool = False, has_parts: bool = False
    ) -> None:
        """has_parts: the parts of the network also compute shapes."""
        self._call, self._stub, self._name, self._ends = call, stub, name, ends
        self._has_parts = has_parts
        self.__wrapped__ = call  # what reads the signature of `forward` reads the network's
        self._known: dict[Hashable, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._stub.is_called:
            return self._call(*args, **kwargs)
        key = call_key(args, kwargs)
        if key not in self._known:
            try:
                self._known[key] = self._computed(args, kwargs)
            except (RuntimeError, NotImplementedError) as limit:
                if not self._has_parts:
                    raise
                try:
                    with without_scores():
                        return self._call(*args, **kwargs)
                except Exception:  # of whatever zeros are not: the limit says more
                    raise limit from None
        answer, peak = self._known[key]
        self._stub.note(self._name, peak)  # also of a later row, whose peaks are counted anew
        if self._ends:
            raise Decoded
        leaves, structure = flatten(answer)
        return unflatten(structure, [_zeros_of(leaf) for leaf in leaves])

    def _computed(self, args: Any, kwargs: Any) -> tuple[Any, int]:
        """Return the result and its peak, which is also noted if the network raises."""
        stub = self._stub
        leaves, structure = flatten((args, kwargs))
        as_meta = [leaf.to("meta") if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        positional, by_keyword = unflatten(structure, as_meta)
        others = [tensor for _, _, tensor in stub.meta]
        others += [leaf for leaf in as_meta if isinstance(leaf, Tensor)]
        config: Any = import_module("torch.fx.experimental._config")
        stub.is_called = True
        try:
            with (
                _standing(stub.meta),
                torch.device("meta"),
                _NoValues(),
                # A mask leaves all tokens: how many it does decides shapes, and meta tensors do not know.
                config.patch(meta_nonzero_assume_all_nonzero=True),
                _autocast(),
                metered(others) as meter,
            ):
                for part in stub.repeated:
                    part.meter = meter
                try:
                    return self._call(*positional, **by_keyword), meter.peak
                finally:
                    stub.note(self._name, meter.peak)
        finally:
            stub.is_called = False
            for part in stub.repeated:
                part.meter = None


@contextmanager
def _standing(tensors: _Tensors) -> Iterator[None]:
    """Put tensors in their places while the block runs."""
    before = [owner[name] for owner, name, _ in tensors]
    try:
        for owner, name, tensor in tensors:
            owner[name] = tensor
        yield
    finally:
        for (owner, name, _), own in zip(tensors, before, strict=True):
            owner[name] = own


@contextmanager
def _autocast() -> Iterator[None]:
    """Allow networks to enter `torch.autocast` for the device "meta", which torch does not support."""
    own: Any = torch.autocast.__init__

    def init(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        own(self, "cpu" if device_type == "meta" else device_type, *args, **kwargs)

    torch.autocast.__init__ = init  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.autocast.__init__ = own  # type: ignore[method-assign]


class _NoValues(TorchFunctionMode):
    """Answers no to questions about a mask's values, with which libraries check whether to skip it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        asks = func in (Tensor.__bool__, Tensor.item) and args[0].is_meta
        if asks and args[0].dtype == torch.bool:
            return False
        return func(*args, **(kwargs or {}))


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
    """Return a grey placeholder for a row's image or video. size: (width, height) in pixels."""
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
