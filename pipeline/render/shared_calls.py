"""What rows call besides denoisers: encoders and decoders; each counted, some shared, some remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from framefleet.pipeline.hooks.intercept import Around, intercept
from framefleet.pipeline.hooks.tree import flatten
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.render.clock import Clock
from framefleet.pipeline.render.fused.batching import Mode
from framefleet.pipeline.render.fused.calls import Method, dtype_of
from framefleet.pipeline.render.fused.row_thread import stay
from framefleet.pipeline.render.lora_layers import LoraLayers
from framefleet.pipeline.render.row_seconds import RowSeconds, timed
from framefleet.pipeline.render.text_encoders import Encoders, Memo

# By the beginnings of their names, networks that are given pictures to describe.
_IMAGE_ENCODERS = ("image_encoder",)

_Seconds = Callable[[], RowSeconds | None]


class SharedCalls:
    """The shared calls of one model's rows. shared: what rows may call together, by name."""

    def __init__(self, model: Model, mode: Mode, encoders: Encoders, loras: LoraLayers, clock: Clock) -> None:
        self._model, self._encoders, self._loras, self._clock = model, encoders, loras, clock
        self._device: str = model.environment["device"]
        decoders, texts = _decoders_of(model), _text_encoders_of(model)
        self._methods = decoders | texts
        # Not texts: a row that waits to share a call does not see that another row encodes the same text.
        self.shared = {} if mode == "exact" else decoders
        self._timed = self._methods if mode == "exact" else texts
        denoisers = model.denoisers()  # of which a call is not a forward yet
        self._others = {name: part for name, part in model.networks().items() if name not in denoisers}
        self._pictures = Memo(copies_objects=True)
        self._autoencoders = {name: part for name, part in self._others.items() if hasattr(part, "encode")}
        self._image_encoders = model.networks(_IMAGE_ENCODERS)

    @contextmanager
    def seen(self) -> Iterator[None]:
        """Give each row its LoRAs while the block runs, and be busy while networks compute."""
        with self._loras.seen(), self._clock.seeing(self._others):
            yield

    @contextmanager
    def around_rows(self, seconds: _Seconds, second_try: Around) -> Iterator[None]:
        """Remember what encoders return while rows are at work. seconds: of the one that is."""
        with ExitStack() as stack:
            stack.callback(self._encoders.leave)
            stack.enter_context(intercept(self._encoders.called, self._encoders))
            stack.enter_context(intercept(self._autoencoders, self._encode_picture, method="encode"))
            stack.enter_context(intercept(self._image_encoders, self._encode_picture))
            for name, method in self._timed.items():
                stopwatch = timed(method.seconds, seconds, self._device)
                stack.enter_context(intercept({name: method.network}, stopwatch, method=method.name))
            for name, method in self._methods.items():
                stack.enter_context(intercept({name: method.network}, second_try, method=method.name))
            yield

    def _encode_picture(self, name: str, encode: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Encode each distinct picture or video once, as it lies in memory."""
        stay()
        has_modes = torch.is_grad_enabled() or torch.is_autocast_enabled(torch.device(self._device).type)
        if has_modes or not self._encoders.is_known(name):  # of a recipe of the user's own
            return encode(*args, **kwargs)
        tensors = (leaf for leaf in flatten((args, kwargs))[0] if isinstance(leaf, Tensor))
        place = (name, _switches(self._others[name]), *(tensor.stride() for tensor in tensors))
        return self._pictures(place, encode, *args, **kwargs)


def _switches(network: Any) -> tuple[tuple[str, Any], ...]:
    """Return what code may set on a network for its calls, such as an autoencoder's tiles."""
    plain = (bool, int, float)
    return tuple((name, v) for name, v in vars(network).items() if name[0] != "_" and type(v) in plain)


def _decoders_of(model: Model) -> dict[str, Method]:
    """Return decoders by the names that logs have for them."""
    return {
        f"{name}.decode": Method(network, "decode", "decode_s", dtype_of(network))
        for name, network in model.networks().items()
        if callable(getattr(network, "decode", None))
    }


def _text_encoders_of(model: Model) -> dict[str, Method]:
    return {
        name: Method(network, seconds="encode_s", dtype=dtype_of(network))
        for name, network in model.text_encoders().items()
    }
