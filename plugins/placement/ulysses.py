"""`placement: ulysses`: processes in lockstep, each with the whole denoiser and a part of the tokens.

In exact mode, calls of each shape are compared with one device, bit for bit, until that is evidence enough.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from framefleet.pipeline.errors import ModelError, RowError
from framefleet.pipeline.hooks.tree import flatten
from framefleet.pipeline.model.device_placement import Placer
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.model.numerics import numerics_of
from framefleet.pipeline.model.options.offload import modules_of
from framefleet.pipeline.model.options.tuning import denoisers_in
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.render.fused.exact import EVIDENCE_FLOAT, EVIDENCE_HALF, are_equal
from framefleet.plugins.placement.ranks import Ranks

log = logging.getLogger(__name__)

# What ranks do as the first one does.
_TAKEN = {"vae_tiling", "vae_slicing", "allow_unmatched_weights"}
_INSTEAD = "use components or layers, which have the bits of one device, or `batching.mode: fast`"


class Ulysses(Placer):
    """Rows run one after another: a forward that is split is too large to share."""

    shares_forwards = False

    @classmethod
    def spread(cls, sizes: Mapping[str, float], num: int) -> list[dict[str, float]]:
        denoisers = {name: sizes[name] for name in denoisers_in(sizes)}
        return [dict(sizes), *(dict(denoisers) for _ in range(num - 1))]

    def check(self, settings: ModelSettings, spec: PipelineSpec) -> None:
        self._numerics = numerics_of(settings.options, threads=settings.threads, device=self.device)
        names = [name for name in settings.options.numerics() if name not in _TAKEN]
        names += ["loras"] * bool(settings.loras) + ["ip_adapter"] * bool(settings.ip_adapter)
        if names:
            raise ModelError(
                f"model.placement: ulysses is set, and model.{names[0]} is too", "leave one of them out"
            )
        if self.device == "cpu" and not self.placement.devices:
            raise ModelError(
                "model.placement: ulysses does not say how many processes compute on the CPU",
                "set it to {type: ulysses, devices: 2}",
            )

    def place(self, pipe: Any) -> None:
        size = self.placement.devices or torch.cuda.device_count()
        if self.device != "cpu" and not 1 < size <= torch.cuda.device_count():
            raise ModelError(
                f"model.placement: ulysses needs {max(size, 2)} GPUs, and this process sees "
                f"{torch.cuda.device_count()}",
                f"set fleet.gpus_per_worker to {max(size, 2)}, or leave model.placement out",
            )
        pipe.to(self.device)
        networks = modules_of(pipe)
        denoisers = {name: networks[name] for name in denoisers_in(networks)}
        for name, network in denoisers.items():
            if not getattr(network, "_cp_plan", None):
                raise ModelError(
                    f"model.placement: diffusers has no context parallel plan for {name}, a "
                    f"{type(network).__name__}",
                    "use components or layers",
                )
        self._is_alone = self._is_exact = False
        self._ranks = Ranks(denoisers, size=size, device=self.device, numerics=self._numerics)
        self._compared = Counter[Hashable]()
        for name, network in denoisers.items():
            network.forward = self._split(name, network)

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
            output = self._ranks(name, *args, **kwargs)
            look = _look(name, args, kwargs)
            if self._is_exact and self._compared[look] < _needed(output):
                expected = original(*args, **kwargs)
                if not are_equal(output, expected):
                    raise RowError(
                        "model.placement: ulysses would give this row other bits than one device, first in "
                        f"{self._first_difference(name, network, original, args, kwargs)}",
                        _INSTEAD,
                    )
                self._compared[look] += sum(leaf.numel() for leaf in _tensors(output))
            return output

        return forward

    def _first_difference(
        self, name: str, network: nn.Module, original: Callable[..., Any], args: Any, kwargs: Any
    ) -> str:
        """Return the innermost module whose part is the first that differs."""
        mine: list[tuple[str, list[Tensor]]] = []
        theirs: dict[str, list[list[Tensor]]] = {}
        with _noting(self._ranks.network(name), lambda path, out: mine.append((path, out))):
            self._ranks(name, *args, **kwargs)
        with _noting(network, lambda path, out: theirs.setdefault(path, []).append(out)):
            original(*args, **kwargs)
        for path, outputs in mine:
            whole = theirs.get(path) or [[]]
            if any(not _is_part(part, all_) for part, all_ in zip(outputs, whole.pop(0), strict=False)):
                return f"{name}.{path}" if path else name
        return name


def _look(name: str, args: Any, kwargs: Any) -> Hashable:
    leaves, structure = flatten((args, kwargs))
    return (
        name,
        structure,
        tuple((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else type(leaf) for leaf in leaves),
    )


def _needed(output: Any) -> int:
    is_half = any(leaf.dtype in (torch.float16, torch.bfloat16) for leaf in _tensors(output))
    return EVIDENCE_HALF if is_half else EVIDENCE_FLOAT


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in flatten(value)[0] if isinstance(leaf, Tensor)]


@contextmanager
def _noting(network: nn.Module, note: Callable[[str, list[Tensor]], None]) -> Iterator[None]:
    """Note what modules without modules in them return, in the order of their calls."""
    handles = [
        part.register_forward_hook(lambda _m, _i, out, path=path: note(path, _tensors(out)))
        for path, part in network.named_modules()
        if path and not [*part.children()]
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_part(part: Tensor, whole: Tensor) -> bool:
    """Whether all of the first rank's part is in the whole tensor: several sequences may be split each."""
    axes = (
        [axis for axis, size in enumerate(part.shape) if size != whole.shape[axis]]
        if _is_alike(part, whole)
        else []
    )
    if len(axes) != 1:
        return part.shape != whole.shape or torch.equal(part, whole)  # others cannot be compared
    return _slices(part, axes[0]) <= _slices(whole, axes[0])


def _is_alike(part: Tensor, whole: Tensor) -> bool:
    return part.dim() == whole.dim() and part.dtype == whole.dtype


def _slices(tensor: Tensor, axis: int) -> set[bytes]:
    plain = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    rows = plain.detach().movedim(axis, 0).contiguous().flatten(1).view(torch.uint8).cpu().numpy()
    return {row.tobytes() for row in rows}
