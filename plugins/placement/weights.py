"""Weights of one model on several GPUs: whole networks (`components`), or blocks of the denoisers (`layers`).

The first denoiser is on the first GPU, where the pipeline works.

For calls of a network on another GPU, tensors go there, and what it returns comes back. Nothing else moves.
Kernels are those of one GPU, and so are bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from accelerate.hooks import ModelHook
from torch import Tensor, nn

from framefleet.api.errors import ModelError, count_text
from framefleet.api.models import ModelSettings, PipelineSpec, Placer
from framefleet.pipeline.hooks.tree import flatten, unflatten
from framefleet.pipeline.memory import on_device
from framefleet.pipeline.model.options.offload import modules_of
from framefleet.pipeline.model.options.tuning import denoisers_in

# What pipelines call of networks besides their forward.
_METHODS = ("encode", "decode", "generate", "get_text_features", "get_image_features")


class Seam:
    """Around the calls of one network, whose weights are on `device` by then."""

    def __init__(self, network: nn.Module, *, device: torch.device, home: torch.device) -> None:
        self._device, self._home = device, home
        self._is_inside = False
        # MiniMax-H3 calls its text encoder without the head.
        for part in (network, *(part for part in network.children() if [*part.children()])):
            part.forward = self._around(part.forward)
        for method in _METHODS:
            if callable(original := getattr(network, method, None)):
                object.__setattr__(network, method, self._around(original))

    def _around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def there(*args: Any, **kwargs: Any) -> Any:
            if self._is_inside:
                return call(*args, **kwargs)
            self._is_inside = True
            try:
                args, kwargs = _moved((args, kwargs), self._home, self._device)
                with on_device(str(self._device)):
                    output = call(*args, **kwargs)
                return _moved(output, self._device, self._home, holders=[])
            finally:
                self._is_inside = False

        return there


def _moved(value: Any, origin: torch.device, place: torch.device, *, holders: list[Any] | None = None) -> Any:
    """Return a value with its tensors of one GPU on another. What is on neither stays, as on one GPU.

    holders: a list to have objects that only hold tensors, such as distributions, copied too.
    """
    leaves, structure = flatten(value, holders=holders)
    there = {
        id(leaf): leaf.to(place) for leaf in leaves if isinstance(leaf, Tensor) and leaf.device == origin
    }
    return unflatten(structure, [there.get(id(leaf), leaf) for leaf in leaves]) if there else value


class Components(Placer):
    """Text encoders, autoencoder and denoisers on different GPUs."""

    # Options whose hooks or kernels expect all of a network's weights on the pipeline's GPU.
    refused: ClassVar[tuple[str, ...]] = ("offload", "compile")

    def spread(self, sizes: Mapping[str, float], num: int) -> list[dict[str, float]]:
        """Put the first denoiser on the first device."""
        first = denoisers_in(sizes)[:1]
        return spread_others(sizes, [{name: sizes[name] for name in first}, *({} for _ in range(num - 1))])

    def check(self, settings: ModelSettings, spec: PipelineSpec, packed: Mapping[str, str]) -> None:
        kind, options = self.placement.type, settings.options
        if self.device not in ("cuda", "auto"):
            problem = f"model.placement: {kind} needs several GPUs, and the model's device is {self.device}"
            raise ModelError(problem, "leave it out, or leave out `model.device` on machines with GPUs")
        names = [name for name in self.refused if getattr(options, name)]
        if names or options.matmul == "triton":
            other = names[0] if names else "matmul: triton"
            raise ModelError(f"model.placement: {kind} is set, and model.{other} is too", "leave one out")

    def place(self, pipe: Any) -> None:
        networks, devices = modules_of(pipe), self._devices()
        self.shares = self.spread({name: weight_bytes(one) for name, one in networks.items()}, len(devices))
        home = ModelHook()  # pipelines ask their networks where to work
        home.execution_device = devices[0]
        for name, network in networks.items():
            pairs = zip(devices, self.shares, strict=True)
            self.put(network, [device for device, share in pairs if name in share])
            network._hf_hook = home

    def put(self, network: nn.Module, devices: Sequence[torch.device]) -> None:
        """Put a network on the devices that have it, or a part of it."""
        network.to(devices[0])
        if devices[0].index:
            Seam(network, device=devices[0], home=torch.device("cuda", 0))

    def _devices(self) -> list[torch.device]:
        num = self.placement.devices or torch.cuda.device_count()
        return [torch.device("cuda", index) for index in range(num)]


class Layers(Components):
    """The blocks of each denoiser spread over all GPUs, in their order; the rest of it on the first one."""

    refused = (*Components.refused, "cache")

    def spread(self, sizes: Mapping[str, float], num: int) -> list[dict[str, float]]:
        # The first GPU also has what is between blocks.
        parts = {name: sizes[name] / num for name in denoisers_in(sizes)}
        return spread_others(sizes, [dict(parts) for _ in range(num)][::-1])[::-1]

    def check_denoisers(self, denoisers: Mapping[str, nn.Module], num: int) -> None:
        for network in denoisers.values():
            _blocks_of(network, num)

    def put(self, network: nn.Module, devices: Sequence[torch.device]) -> None:
        if len(devices) > 1:
            _split(network, devices)
        else:
            super().put(network, devices)


def spread_others(
    sizes: Mapping[str, float], shares: Sequence[Mapping[str, float]]
) -> list[dict[str, float]]:
    """Add the networks that no device has yet, the largest first, each where least is so far."""
    after = [dict(share) for share in shares]
    rest = [name for name in sizes if not any(name in share for share in shares)]
    for name in sorted(rest, key=lambda name: -sizes[name]):
        min(after, key=lambda share: sum(share.values()))[name] = sizes[name]
    return after


def _blocks_of(network: nn.Module, num: int) -> list[nn.Module]:
    """Return the blocks of a network. Raises ModelError where there are fewer than `num` devices."""
    lists = [part for part in network.children() if isinstance(part, nn.ModuleList)]
    blocks = [block for part in lists for block in part if [*block.parameters()]]
    if len(blocks) < num:
        raise ModelError(
            f"model.placement: layers finds {count_text(len(blocks), 'block')} in {type(network).__name__}, "
            f"for {num} GPUs",
            f"set model.placement.devices to at most {len(blocks)}, or use components"
            if len(blocks) > 1
            else "use components",
        )
    return blocks


def _split(network: nn.Module, devices: Sequence[torch.device]) -> None:
    """Put the blocks of a network on these devices, in their order, and all else on the first."""
    blocks = _blocks_of(network, len(devices))
    done, whole = 0, sum(map(weight_bytes, blocks))
    for block in blocks:
        size = weight_bytes(block)
        device = devices[min((done + size // 2) * len(devices) // whole, len(devices) - 1)]
        done += size
        block.to(device)
        if device != devices[0]:
            Seam(block, device=device, home=devices[0])
    placed = {id(part) for block in blocks for part in block.modules()}
    for part in network.modules():
        if id(part) not in placed:
            part._apply(lambda weight: weight.to(devices[0]), recurse=False)  # type: ignore[no-untyped-call]


def weight_bytes(network: nn.Module) -> int:
    return sum(weight.nbytes for weight in (*network.parameters(), *network.buffers()))
