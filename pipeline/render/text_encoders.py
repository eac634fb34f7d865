"""Calls of text encoders: each distinct one made once, with the row's LoRAs, and kept if the job says so.

The weights of encoders whose outputs are kept wait in host memory, and are on the GPU only during calls.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils import swap_tensors

from framefleet.pipeline.hooks.adapters import of_one_row
from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.memory import empty_cache
from framefleet.pipeline.metrics import Spending
from framefleet.pipeline.model.lora import adapter_name
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.render.embeddings import Embeddings, Encoded
from framefleet.pipeline.render.fused.calls import digest_of, is_private
from framefleet.pipeline.render.fused.cross_check import are_equal
from framefleet.pipeline.render.lora_layers import LoraLayers

log = logging.getLogger(__name__)

Pairs = list[tuple[Tensor, Tensor]]  # each weight of a module on the device, and its twin in host memory
# 64 prompts of a 4,096-wide encoder at 512 tokens in bf16.
_MAX_BYTES = 256 * 2**20


class Encoders:
    """Put around the `forward` of a model's text encoders by `intercept`."""

    def __init__(
        self,
        model: Model,
        loras: LoraLayers,
        *,
        mode: str,
        kept_in: Store | None,
        spending: Spending = nullcontext,
    ) -> None:
        """kept_in: where outputs are kept; the encoders are then on the GPU only while they are called."""
        self._loras = loras
        # Asked with an encoder's name, whether it and its code are as they were loaded.
        self.is_untouched: Callable[[str], bool] = lambda name: True
        self._digests = {adapter_name(name): lora.sha256 for name, lora in model.settings.loras.items()}
        encoders = model.text_encoders() if kept_in else {}
        kept = Embeddings(kept_in, model, model.settings.numerics(mode), spending) if kept_in else None
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


class Memo:
    """Put around an encoder's `forward` by `intercept`."""

    def __init__(self, kept: Embeddings | None = None, *, max_bytes: int = _MAX_BYTES) -> None:
        self._kept = kept
        self._max_bytes = max_bytes
        self._known: OrderedDict[Hashable, tuple[list[Any], Hashable, int]] = OrderedDict()
        self._bytes = 0
        self._proven: set[Hashable] = set()  # places whose entries of other runs are right, as one was

    def __call__(self, place: Hashable, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """place: what is called, by name and weights; `Embeddings` wants (encoder, LoRAs ...)."""
        given, nesting = flatten((args, kwargs))
        if is_private() or not _are_values(given):
            return forward(*args, **kwargs)
        key = (place, nesting, tuple(digest_of(v) if isinstance(v, Tensor) else (type(v), v) for v in given))
        found = self._kept.find(key) if self._kept and key not in self._known else None
        if found is not None and place in self._proven:
            self._remember(key, *found)
        elif key not in self._known:
            output = forward(*args, **kwargs)
            leaves, structure = flatten(output)
            if not _are_values(leaves):
                return output
            self._remember(key, leaves, structure)
            if self._kept:
                self._keep(key, (leaves, structure), found)
        self._known.move_to_end(key)
        leaves, structure, _ = self._known[key]
        self._forget()
        return unflatten(structure, [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves])

    def _keep(self, key: tuple[Hashable, ...], output: Encoded, found: Encoded | None) -> None:
        """Have what was encoded written. found: what was kept of the same call, by another run."""
        assert self._kept is not None
        is_equal = found is not None and found[1] == output[1] and are_equal(found[0], output[0])
        if is_equal:
            self._proven.add(key[0])
        else:
            self._kept.keep(key, output, is_instead=found is not None)

    def _remember(self, key: Hashable, leaves: list[Any], structure: Hashable) -> None:
        size = sum(leaf.numel() * leaf.element_size() for leaf in leaves if isinstance(leaf, Tensor))
        self._known[key] = (leaves, structure, size)
        self._bytes += size

    def _forget(self) -> None:
        while self._bytes > self._max_bytes:
            _, (_, _, size) = self._known.popitem(last=False)
            self._bytes -= size


def _are_values(leaves: list[Any]) -> bool:
    """Whether nothing among them has a state of its own."""
    return all(leaf is None or isinstance(leaf, Tensor | bool | int | float | str) for leaf in leaves)
