"""What rows call besides denoisers: decoders and text encoders; each counted, some shared, some cached."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from framefleet.pipeline.hooks.intercept import Around, intercept
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.render.clock import Clock
from framefleet.pipeline.render.fused.batching import Mode
from framefleet.pipeline.render.fused.calls import Method, Methods, dtype_of
from framefleet.pipeline.render.lora_layers import LoraLayers
from framefleet.pipeline.render.text_encoders import Encoders

_Seconds = Callable[[], MutableMapping[str, float] | None]


class SharedCalls:
    """Those of one model's rows. shared: what rows may call together, by name."""

    def __init__(self, model: Model, mode: Mode, encoders: Encoders, loras: LoraLayers, clock: Clock) -> None:
        self._model, self._encoders, self._loras, self._clock = model, encoders, loras, clock
        self._device: str = model.environment["device"]
        self._methods = _methods_of(model)
        # Parked weights are there while a row is at work, and not while calls of many rows run.
        alone = self._methods.keys() if mode == "exact" else encoders.alone
        self.shared = {name: method for name, method in self._methods.items() if name not in alone}
        self._timed = {name: method for name, method in self._methods.items() if name in alone}
        denoisers = model.denoisers()  # of which a call is not a forward yet
        self._others = {name: part for name, part in model.networks().items() if name not in denoisers}

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
            for name, method in self._timed.items():
                stopwatch = timed(method.seconds, seconds, self._device)
                stack.enter_context(intercept({name: method.network}, stopwatch, method=method.name))
            for name, method in self._methods.items():
                stack.enter_context(intercept({name: method.network}, second_try, method=method.name))
            yield


def _methods_of(model: Model) -> Methods:
    """Return what rows call besides denoisers by name, with the seconds of a clip that each counts for."""
    found = {
        f"{name}.decode": Method(network, "decode", "decode_s", dtype_of(network))
        for name, network in model.networks().items()
        if callable(getattr(network, "decode", None))
    }
    for name, network in model.text_encoders().items():
        found[name] = Method(network, seconds="encode_s", dtype=dtype_of(network))
    return found


def timed(key: str, seconds: _Seconds, device: str) -> Around:
    """Return what adds the seconds of each call to a row's. seconds: of the row at work; None: no row's call.

    A GPU is waited for at both ends: calls return once they are launched. What it still denoises as a
    decoder is called counts as denoising.
    """

    def measured(name: str, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        called = time.perf_counter()
        started = _done(device)
        try:
            result = original(*args, **kwargs)
            ended = _done(device)
        except BaseException:
            ended = time.perf_counter()
            raise
        finally:
            row = seconds()
            if row is not None:
                row[key] = row.get(key, 0.0) + ended - started
                if key == "decode_s":
                    row["denoise_s"] = row.get("denoise_s", 0.0) + started - called
        return result

    return measured


def _done(device: str) -> float:
    """Return when all that was launched is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()
