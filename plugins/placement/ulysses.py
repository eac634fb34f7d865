"""`placement: ulysses`: processes in lockstep, each with the whole denoiser and a part of the tokens.

In exact mode, calls of each shape are compared with one device, bit for bit, until that is evidence enough.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from framefleet.api.errors import ModelError, RowError, count_text
from framefleet.api.models import ModelSettings, PipelineSpec, Placer, is_out_of_memory
from framefleet.pipeline.errors import message_of
from framefleet.pipeline.hooks.tree import flatten
from framefleet.pipeline.model.numerics import numerics_of
from framefleet.pipeline.model.options.offload import modules_of
from framefleet.pipeline.model.options.tuning import denoisers_in
from framefleet.pipeline.render.fused.exact import EVIDENCE_FLOAT, EVIDENCE_HALF, are_equal
from framefleet.plugins.placement.lockstep import Ranks
from framefleet.plugins.placement.weights import Components, spread_others, weight_bytes

_NUMBER = re.compile(r"\.\d+(?=\.|$)")
# What ranks do as the first one does.
_TAKEN = {"vae_tiling", "vae_slicing", "allow_unmatched_weights"}
_INSTEAD = "use components or layers, which have the bits of one device, or `batching.mode: fast`"


class Ulysses(Placer):
    """Rows run one after another: a forward that is split is too large to share."""

    shares_forwards = False

    def spread(self, sizes: Mapping[str, float], num: int) -> list[dict[str, float]]:
        denoisers = {name: sizes[name] for name in denoisers_in(sizes)}
        return [dict(sizes), *(dict(denoisers) for _ in range(num - 1))]

    def check(self, settings: ModelSettings, spec: PipelineSpec, packed: Mapping[str, str]) -> None:
        self._numerics = numerics_of(settings.options, threads=settings.threads, device=self.device)
        names = [name for name in settings.options.numerics() if name not in _TAKEN]
        names += ["loras"] * bool(settings.loras) + ["ip_adapter"] * bool(settings.ip_adapter)
        if names:
            problem = f"model.placement: ulysses and model.{names[0]} are both set"
            raise ModelError(problem, "remove one of them")
        if any(name.startswith("controlnet") for name in spec.components):
            problem = (
                "model.placement: ulysses splits tokens, but diffusers does not split what a ControlNet adds"
            )
            raise ModelError(problem, "use components or layers")
        for name in denoisers_in(packed):  # the other processes build it from its config
            problem = f"model.placement: ulysses takes plain weights, but those of {name} are packed, by "
            raise ModelError(problem + packed[name], "use plain weights, or components or layers")
        if self.device == "cpu" and not self.placement.devices:
            problem = "model.placement: ulysses does not say how many processes compute on the CPU"
            raise ModelError(problem, "set it to {type: ulysses, devices: 2}")

    def check_denoisers(self, denoisers: Mapping[str, nn.Module], num: int) -> None:
        size = self.placement.ranks or num
        for name, network in denoisers.items():
            plan: Mapping[str, Any] = getattr(network, "_cp_plan", None) or {}
            inputs = [str(key) for part in plan.values() if isinstance(part, dict) for key in part]
            # LTX gives each rank its heads, and the mask of all heads (diffusers 0.42).
            has_mask = any(key.endswith("attention_mask") for key in inputs)
            if not plan or has_mask:
                raise ModelError(
                    f"model.placement: diffusers has no context parallel plan for "
                    f"{'the attention mask of ' * has_mask}{name}, a {type(network).__name__}",
                    "use components or layers",
                )
            if outside := _unplanned(network, plan):
                raise ModelError(
                    f"model.placement: the context parallel plan of diffusers for {name}, a "
                    f"{type(network).__name__}, ends before {outside}",
                    "use components or layers",
                )
            if (heads := getattr(network.config, "num_attention_heads", size)) < size:
                raise ModelError(
                    f"model.placement: {name} has {count_text(heads, 'attention head')}, but ulysses "
                    f"needs at least one for each of {size} devices",
                    f"set model.placement.devices to {heads}" if heads > 1 else "use components or layers",
                )

    def place(self, pipe: Any) -> None:
        num = self.placement.devices or torch.cuda.device_count()
        size = self.placement.ranks or num
        self.put_whole(pipe)
        networks = modules_of(pipe)
        denoisers = {name: networks[name] for name in denoisers_in(networks)}
        self.check_denoisers(denoisers, num)
        self._is_alone = self._is_exact = False
        self._ranks = Ranks(denoisers, size=size, device=self.device, numerics=self._numerics)
        self._compared = Counter[Hashable]()
        self._failures: dict[Hashable, str] = {}  # by the looks of calls
        for name, network in denoisers.items():
            network.forward = self._split(name, network)

    def put_whole(self, pipe: Any) -> None:
        """Put the pipeline on the devices of this process."""
        pipe.to(self.device)
        sizes = {name: weight_bytes(network) for name, network in modules_of(pipe).items()}
        self.shares = self.spread(sizes, self.placement.devices or torch.cuda.device_count())

    def begin(self, *, is_exact: bool) -> None:
        self._is_exact = is_exact

    @contextmanager
    def alone(self) -> Iterator[None]:
        before, self._is_alone = self._is_alone, True
        try:
            yield
        finally:
            self._is_alone = before

    def close(self) -> None:
        """End the other processes."""
        self._ranks.close()

    def _split(self, name: str, network: nn.Module) -> Callable[..., Any]:
        original = network.forward

        @functools.wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:
            self._ranks.check()  # for plain calls too: else a worker would go on without its ranks
            if self._is_alone:
                return original(*args, **kwargs)
            look = _look(name, args, kwargs)
            if look in self._failures:  # to try it again would start the others anew
                raise RowError(self._failures[look], _INSTEAD)
            try:
                output = self._ranks(name, *args, **kwargs)
            except (RuntimeError, ValueError, TypeError) as error:
                if is_out_of_memory(error) or not (path := self._ranks.failed_in):
                    raise
                original(*args, **kwargs)  # which raises as well where it is the row, or a broken device
                problem = f"model.placement: {self.placement.type} fails in {path}: {message_of(error)}"
                self._failures[look] = problem
                raise RowError(problem, _INSTEAD) from error
            is_half = any(leaf.dtype in (torch.float16, torch.bfloat16) for leaf in _tensors(output))
            if self._is_exact and self._compared[look] < (EVIDENCE_HALF if is_half else EVIDENCE_FLOAT):
                expected = original(*args, **kwargs)
                if not are_equal(output, expected):
                    place = self._first_difference(name, network, original, args, kwargs)
                    problem = "model.placement: ulysses would give this row other bits than one device"
                    raise RowError(f"{problem}, first in {place}", _INSTEAD)
                self._compared[look] += sum(leaf.numel() for leaf in _tensors(output))
            return output

        return forward

    def _first_difference(
        self, name: str, network: nn.Module, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> str:
        """Return the innermost module that is the first to differ, on any of the devices."""
        mine: list[tuple[str, Any]] = []
        theirs: dict[str, list[tuple[Any, ...]]] = {}
        with _noting(self._ranks.twins[name], lambda path, _, output: mine.append((path, output))):
            self._ranks(name, *args, **kwargs)
        with _noting(network, lambda path, *call: theirs.setdefault(path, []).append(call)):
            original(*args, **kwargs)
        for path, output in mine:
            if calls := theirs.get(path):
                module = network.get_submodule(path)
                if not _is_the_same(module, *calls.pop(0), part=output, num=self._ranks.size):
                    return f"{name}.{path}"
        return name


def _unplanned(network: nn.Module, plan: Mapping[str, Any]) -> str | None:
    """Return a module whose input the plan splits by a pattern, and whose output it joins for others alone.

    The plan of Helios joins outputs of 40 blocks by their numbers.
    """
    joined = {pattern for key in plan if (pattern := _NUMBER.sub(".*", key)) != key} & plan.keys()
    paths = (path for path, _ in network.named_modules() if path not in plan)
    return next((path for path in paths if _NUMBER.sub(".*", path) in joined), None)


class UlyssesComponents(Ulysses, Components):
    """Denoisers as `ulysses`, on all GPUs or the first `ranks`; other networks where there is room."""

    takes_ranks = True

    def spread(self, sizes: Mapping[str, float], num: int) -> list[dict[str, float]]:
        ranks = min(self.placement.ranks or num, num)
        denoisers = {name: sizes[name] for name in denoisers_in(sizes)}
        return spread_others(sizes, [denoisers if index < ranks else {} for index in range(num)])

    def check(self, settings: ModelSettings, spec: PipelineSpec, packed: Mapping[str, str]) -> None:
        Components.check(self, settings, spec, packed)
        Ulysses.check(self, settings, spec, packed)

    def put_whole(self, pipe: Any) -> None:
        Components.place(self, pipe)


def _look(name: str, args: Any, kwargs: Any) -> Hashable:
    leaves, structure = flatten((args, kwargs))
    looks = [(leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else type(leaf) for leaf in leaves]
    return name, structure, tuple(looks)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in flatten(value)[0] if isinstance(leaf, Tensor)]


@contextmanager
def _noting(network: nn.Module, note: Callable[[str, Any, Any], None]) -> Iterator[None]:
    """Note what modules without modules in them get and return, in the order of their calls."""
    handles = [
        part.register_forward_hook(lambda _, args, output, path=path: note(path, args, output))
        for path, part in network.named_modules()
        if path and not [*part.children()]
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_the_same(module: nn.Module, args: Any, whole: Any, *, part: Any, num: int) -> bool:
    """Whether a module has the bits of one device on each. part: what it gave the first of `num`."""
    for own, all_ in zip(_tensors(part), _tensors(whole), strict=False):
        if own.shape == all_.shape:
            if not torch.equal(own, all_):
                return False
            continue
        axes = [
            axis for axis, sizes in enumerate(zip(own.shape, all_.shape, strict=False)) if len({*sizes}) > 1
        ]
        if own.dim() != all_.dim() or len(axes) != 1:
            continue  # cannot be compared
        # Several sequences may be split each.
        if not _slices(own, axes[0]) <= _slices(all_, axes[0]):
            return False
        is_plain = isinstance(whole, Tensor) and len(args) == 1
        if is_plain and args[0].dim() == all_.dim() and args[0].shape[axes[0]] == all_.shape[axes[0]]:
            pairs = zip(*(tensor.chunk(num, axes[0]) for tensor in (args[0], all_)), strict=True)
            if not all(torch.equal(module(values), expected) for values, expected in pairs):
                return False
    return True


def _slices(tensor: Tensor, axis: int) -> set[bytes]:
    plain = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    rows = plain.detach().movedim(axis, 0).contiguous().flatten(1).view(torch.uint8).cpu().numpy()
    return {row.tobytes() for row in rows}
