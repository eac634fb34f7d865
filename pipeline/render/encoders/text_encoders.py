"""Calls of text encoders: each distinct one made once, with the row's LoRAs, and kept if the job says so.

The weights of encoders whose outputs are kept wait in host memory, and are on the GPU only during calls.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils import swap_tensors

from framefleet.pipeline.hooks.adapters import of_one_row
from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.memory import empty_cache
from framefleet.pipeline.model.loras.lora import adapter_name
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.render.encoders.embeddings import Embeddings
from framefleet.pipeline.render.encoders.memo import Memo
from framefleet.pipeline.render.lora_layers import LoraLayers

log = logging.getLogger(__name__)

Pairs = list[tuple[Tensor, Tensor]]  # each weight of a module on the device, and its twin in host memory


class Encoders:
    """Put around the `forward` of a model's text encoders by `intercept`."""

    def __init__(self, model: Model, loras: LoraLayers, *, mode: str, kept_in: Store | None) -> None:
        """kept_in: where outputs are kept; the encoders are then on the GPU only while they are called."""
        self._loras = loras
        # Asked with an encoder's name, whether it and its code are as they were loaded.
        self.is_untouched: Callable[[str], bool] = lambda name: True
        self._digests = {adapter_name(name): lora.sha256 for name, lora in model.settings.loras.items()}
        encoders = model.text_encoders() if kept_in else {}
        kept = Embeddings(kept_in, model, model.settings.numerics(mode)) if kept_in else None
        self._memo = Memo(kept)
        parked = {name: encoder for name, encoder in encoders.items() if is_on_gpu(encoder)}
        self._parked = Parked(parked, model.environment["device"])
        self.parked = parked.keys()

    def __call__(self, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        row, encode = of_one_row(), partial(self._parked.run, name, forward)
        if not (self._loras.is_as_asked(name, row) and self.is_untouched(name)):
            return encode(*args, **kwargs)  # another encoder, of which nothing is known
        # An encoder with a LoRA is another one too, which is known by the LoRA.
        loras = self._loras.used_in(name, row.asked)
        place = (name, *((self._digests[adapter], weight) for adapter, weight in loras))
        return self._memo(place, encode, *args, **kwargs)

    def leave(self) -> None:
        """Free the GPU of encoders whose outputs are kept."""
        self._parked.leave()

    def bring(self) -> None:
        """Put all encoders where they were."""
        self._parked.bring()


class Parked:
    """`leave` frees `device` of the modules' weights; `run` brings one's back, `bring` all.

    Weights are copied to the device, never from it, so they must not change. In between they are on the CPU,
    and so is what a pipeline passes if it asks the module for its device: `run` moves that too. Not covered:
    code that computes with parts of a module without calling it.
    """

    def __init__(self, modules: Mapping[str, nn.Module], device: str) -> None:
        """modules: all their weights on `device`."""
        self._modules = modules
        self._device = device
        self._present = {name: _pairs(module, "cpu") for name, module in modules.items()}

    def run(self, name: str, forward: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `forward` of a module with its weights and all tensors on the device."""
        if name not in self._modules:
            return forward(*args, **kwargs)
        self._bring(name)
        leaves, structure = flatten((args, kwargs))
        moved = [leaf.to(self._device) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        own_args, own_kwargs = unflatten(structure, moved)
        return forward(*own_args, **own_kwargs)

    def bring(self) -> None:
        """Put all modules where they were."""
        for name in self._modules:
            self._bring(name)

    def leave(self) -> None:
        """Free the device of all modules."""
        if self._present:
            while self._present:
                self._leave(*self._present.popitem())
            empty_cache()

    def _leave(self, name: str, pairs: Pairs) -> None:
        _swap(pairs)
        size = sum(twin.nbytes for _, twin in pairs)
        log.info("%s left %s: %s bytes are free", name, self._device, f"{size:,}")

    def _bring(self, name: str) -> None:
        if name not in self._present:
            pairs = _pairs(self._modules[name], self._device)
            _swap(pairs)  # after all copies: memory may run out on the way
            self._present[name] = pairs


def is_on_gpu(module: nn.Module) -> bool:
    """Whether all its weights are: not on a CPU, and not moved by hooks of another."""
    return all(weight.device.type != "cpu" for weight in _weights(module))


def _pairs(module: nn.Module, device: str) -> Pairs:
    return [(weight, _twin(weight, device)) for weight in _weights(module)]


def _weights(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _swap(pairs: Pairs) -> None:
    for weight, twin in pairs:
        swap_tensors(weight, twin)  # type: ignore[no-untyped-call]


def _twin(weight: Tensor, device: str) -> Tensor:
    """Return a copy that can be swapped for `weight`, whose `data` cannot hold another kind of device."""
    copy = weight.detach().to(device)
    if isinstance(weight, nn.Parameter):
        return nn.Parameter(copy, requires_grad=weight.requires_grad)
    return copy
