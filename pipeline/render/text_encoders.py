"""Calls of text encoders: each distinct one made once, with the row's LoRAs, and kept if the job says so.

`SharedCalls` are all that rows call besides denoisers, decoders too: each counted, some shared.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import swap_tensors
from transformers.utils import ModelOutput

from framefleet.pipeline.errors import count_text
from framefleet.pipeline.hooks.adapters import of_one_row
from framefleet.pipeline.hooks.intercept import Around, intercept
from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.memory import empty_cache
from framefleet.pipeline.metrics import Spending
from framefleet.pipeline.model.lora import adapter_name
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.recipes.recipe import RecipeSet
from framefleet.pipeline.render.clock import Clock
from framefleet.pipeline.render.embeddings import Embeddings
from framefleet.pipeline.render.fused.batching import Mode
from framefleet.pipeline.render.fused.calls import Method, digests_of, dtype_of, is_private
from framefleet.pipeline.render.fused.concatenation import Layout
from framefleet.pipeline.render.fused.exact import are_equal
from framefleet.pipeline.render.fused.joint_calls import row_by_row
from framefleet.pipeline.render.fused.row_thread import stay
from framefleet.pipeline.render.lora_layers import LoraLayers
from framefleet.pipeline.render.row_seconds import RowSeconds, timed

log = logging.getLogger(__name__)

Pairs = list[tuple[Tensor, Tensor]]  # each weight of a module on the device, and its twin in host memory
_PIPELINES = ("diffusers.pipelines.", "diffusers.modular_pipelines.")
# 64 prompts of a 4,096-wide encoder at 512 tokens in bf16.
_MAX_BYTES = 256 * 2**20
_CACHES = {"past_key_values", "cache"}  # the second since transformers 5.24


class Encoders:
    """Put around the `forward` of a model's text encoders by `intercept`."""

    def __init__(
        self,
        model: Model,
        loras: LoraLayers,
        recipes: RecipeSet,
        *,
        numerics: Mapping[str, Any],
        kept_in: Store | None,
        spending: Spending = nullcontext,
    ) -> None:
        """numerics: what decides outputs, besides files and environment. kept_in: where outputs are kept; the
        encoders are then on the GPU only while they are called.
        """
        self._loras, self._recipes = loras, recipes
        # Asked with an encoder's name, whether it and its code are as they were loaded.
        self.is_untouched: Callable[[str], bool] = lambda name: True
        self._digests = {adapter_name(name): lora.sha256 for name, lora in model.settings.loras.items()}
        # Those on a GPU of their own stay there.
        encoders = model.text_encoders() if kept_in and not model.placer else {}
        self._memo = Memo(Embeddings(kept_in, model, numerics, spending) if kept_in else None)
        parked = {name: encoder for name, encoder in encoders.items() if is_on_gpu(encoder)}
        self._parked = Parked(parked, model.environment["device"])
        self.parked = parked.keys()  # encoders whose weights come and go
        self.called = model.text_encoders()  # what calls of rows are answered of
        self._networks = model.networks()

    def __call__(self, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        row, encode = of_one_row(), partial(self._parked.run, name, forward)
        if not (self._loras.is_as_asked(name, row) and self.is_known(name)):
            return encode(*args, **kwargs)  # an unknown encoder
        # An encoder with a LoRA is another one too, which is known by the LoRA.
        loras = self._loras.used_in(name, row.asked)
        own = self._recipes.own
        place = (
            name,
            *([("recipe", own.digest)] if own else []),
            *((self._digests[adapter], weight) for adapter, weight in loras),
        )
        return self._memo(place, encode, *args, **kwargs)

    def is_known(self, name: str) -> bool:
        """Tell whether what an encoder returns for a call says what it returns for the next one like it.

        A user's recipe may change it unseen, for its call, unless it says that it does not. And a pipeline
        may take what it wants from layers of the encoder, by hooks, as it is called.
        """
        if not (self._recipes.are_batched and self.is_untouched(name)):
            return False
        hooks = (hook for part in self._networks[name].modules() for hook in part._forward_hooks.values())
        return not any(getattr(hook, "__module__", "").startswith(_PIPELINES) for hook in hooks)

    def leave(self) -> None:
        """Free the GPU of encoders whose outputs are kept."""
        # Else a recipe would change one copy of a weight, and put the other one back.
        if self._recipes.are_batched:
            self._parked.leave()

    def bring(self) -> None:
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
        for name in self._modules:
            self._bring(name)

    def leave(self) -> None:
        """Free the device of all modules."""
        if self._present:
            while self._present:
                name, pairs = self._present.popitem()
                _swap(pairs)
                size = sum(twin.nbytes for _, twin in pairs)
                log.info("%s left %s and freed %s", name, self._device, count_text(size, "byte"))
            empty_cache()

    def _bring(self, name: str) -> None:
        if name not in self._present:
            pairs = _pairs(self._modules[name], self._device)
            _swap(pairs)  # after all copies: memory may run out on the way
            self._present[name] = pairs


def is_on_gpu(module: nn.Module) -> bool:
    """Whether all its weights are: not on a CPU, and not moved by hooks of another."""
    return all(weight.device.type != "cpu" for weight in _weights(module))


def _pairs(module: nn.Module, device: str) -> Pairs:
    """Return each weight with a copy that can be swapped for it: its `data` cannot hold another device's."""
    pairs: Pairs = []
    for weight in _weights(module):
        copy = weight.detach().to(device)
        is_parameter = isinstance(weight, nn.Parameter)
        pairs.append((weight, nn.Parameter(copy, weight.requires_grad) if is_parameter else copy))
    return pairs


def _weights(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _swap(pairs: Pairs) -> None:
    for weight, twin in pairs:
        swap_tensors(weight, twin)  # type: ignore[no-untyped-call]


class Memo:
    """Put around an encoder's `forward` by `intercept`."""

    def __init__(
        self, kept: Embeddings | None = None, *, max_bytes: int = _MAX_BYTES, copies_objects: bool = False
    ) -> None:
        """kept: encodings of other processes. copies_objects: outputs hold objects, e.g. distributions."""
        self._kept, self._copies_objects = kept, copies_objects
        self._max_bytes = max_bytes
        self._known: OrderedDict[Hashable, tuple[list[Any], Hashable, int]] = OrderedDict()
        self._bytes = 0
        self._proven: set[Hashable] = set()  # places whose entries of other runs are right, as one was

    def __call__(self, place: Hashable, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """place: what is called, by name and weights; `Embeddings` wants (encoder, LoRAs ...)."""
        leaves_in, nesting = flatten((args, kwargs))
        if is_private() or not _are_values(leaves_in):
            return forward(*args, **kwargs)
        digests = iter(digests_of([value for value in leaves_in if isinstance(value, Tensor)]))
        key = (
            place,
            nesting,
            tuple(next(digests) if isinstance(v, Tensor) else (type(v), v) for v in leaves_in),
        )
        entry = self._kept.find(key) if self._kept and key not in self._known else None
        if entry and place in self._proven:
            self._remember(key, *entry)
        elif key not in self._known:
            output = forward(*args, **kwargs)
            encoding = output
            # Language models collect keys and values for a next token by default, and there is none.
            held = _CACHES & {*output} if isinstance(output, ModelOutput) else None
            if held and not kwargs.get("use_cache"):
                encoding = type(output)(**{**output, **dict.fromkeys(held)})
            leaves, structure = flatten(encoding, holders=[] if self._copies_objects else None)
            if not _are_values(leaves):
                return output
            self._remember(key, leaves, structure)
            if entry is not None and entry[1] == structure and are_equal(entry[0], leaves):
                self._proven.add(key[0])
            elif self._kept:
                self._kept.keep(key, (leaves, structure), is_instead=entry is not None)
        self._known.move_to_end(key)
        leaves, structure, _ = self._known[key]
        while self._bytes > self._max_bytes:
            _, (_, _, size) = self._known.popitem(last=False)
            self._bytes -= size
        return unflatten(structure, [_copy(leaf) for leaf in leaves])

    def _remember(self, key: Hashable, leaves: list[Any], structure: Hashable) -> None:
        size = sum(leaf.numel() * leaf.element_size() for leaf in leaves if isinstance(leaf, Tensor))
        self._known[key] = (leaves, structure, size)
        self._bytes += size


def _copy(leaf: Any) -> Any:
    """Return a copy of a tensor that lies in memory as the tensor does: kernels are chosen by that."""
    layout = Layout.of(leaf)
    if layout is None:
        return leaf
    return leaf.clone() if 0 in layout.strides else layout.copy_of(leaf)


def _are_values(leaves: list[Any]) -> bool:
    """Whether nothing among them has a state of its own."""
    values = Tensor | bool | int | float | str
    return all(leaf is None or isinstance(leaf, values) for leaf in leaves)


# By the beginnings of their names, networks that are given pictures to describe.
_IMAGE_ENCODERS = ("image_encoder",)

_Seconds = Callable[[], RowSeconds | None]


class SharedCalls:
    """The shared calls of one model's rows. shared: what rows may call together, by name."""

    def __init__(self, model: Model, mode: Mode, encoders: Encoders, loras: LoraLayers, clock: Clock) -> None:
        self._encoders, self._loras, self._clock = encoders, loras, clock
        self._device: str = model.environment["device"]
        decoders = {
            f"{name}.decode": Method(network, "decode", "decode_s", dtype_of(network))
            for name, network in model.networks().items()
            if callable(getattr(network, "decode", None))
        }
        texts = {
            name: Method(network, seconds="encode_s", dtype=dtype_of(network))
            for name, network in model.text_encoders().items()
        }
        self._methods = decoders | texts
        # Not texts: a row that waits to share a call does not see that another row encodes the same text.
        self.shared = {} if mode == "exact" else decoders
        self._timed = self._methods if mode == "exact" else texts
        self._by_row = {} if mode == "exact" else encoders.called
        denoisers = model.denoisers()  # their calls are parked before their forwards
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
            stack.enter_context(intercept(self._by_row, row_by_row))
            yield

    def _encode_picture(self, name: str, encode: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Encode each distinct picture or video once, as it lies in memory."""
        stay()
        has_modes = torch.is_grad_enabled() or torch.is_autocast_enabled(torch.device(self._device).type)
        if has_modes or not self._encoders.is_known(name):  # of a recipe of the user's own
            return encode(*args, **kwargs)
        tensors = (leaf for leaf in flatten((args, kwargs))[0] if isinstance(leaf, Tensor))
        # What code may set on a network for its calls, such as an autoencoder's tiles.
        own = vars(self._others[name]).items()
        switches = tuple((key, v) for key, v in own if key[0] != "_" and type(v) in (bool, int, float))
        place = (name, switches, *(tensor.stride() for tensor in tensors))
        return self._pictures(place, encode, *args, **kwargs)
