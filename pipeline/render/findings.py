"""What is known of calls that look alike, from this process and from others under the same conditions."""

from __future__ import annotations

import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from typing import Any

import torch

from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.model.environment import lines_beginning
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.render.findings_storage import BatchSize, Found, Pins, Places, Worth, united
from framefleet.pipeline.render.fused.batching import Batching, Sizes
from framefleet.pipeline.render.fused.calls import Call
from framefleet.pipeline.render.fused.pins import Kind

# Looks whose findings are held in memory; others are read again.
_HELD = 4096
# The address of an object that only this process has.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
# What chooses kernels from outside. Which of several equal GPUs a process has is not among it.
_PREFIXES = ("ATEN_", "CUBLAS", "CUDNN_", "DNNL_", "KMP_", "MKL_", "NVIDIA_TF32", "OMP_", "ONEDNN_")
_PREFIXES_OF_TORCH = ("PYTORCH_", "TORCH_", "TORCHINDUCTOR_")
# Where compiled code lies, and not what it is. Torch sets it itself, in one process sooner than in another.
_PLACE = "TORCHINDUCTOR_CACHE_DIR"


class Findings:
    """What is known of one model in its surroundings. Without places, nothing is known or kept."""

    def __init__(
        self,
        places: Places | None = None,
        surroundings: str = "",
        num_fitting: Callable[[Call | None], int | None] = lambda _: None,
    ) -> None:
        """num_fitting: how many rows a forward like this call has memory for, if that is known."""
        self.num_fitting = num_fitting
        self._places = places
        self._surroundings = surroundings
        self._known: OrderedDict[str, Found] = OrderedDict()
        self._own: dict[str, Found] = {}  # measured or proven here: only this is handed on

    def tell(self, look: Hashable, sizes: Sizes) -> bool:
        """Add to `sizes` what is known of calls that look like this; return whether anything is."""
        batch_sizes = self._of(look).sizes
        for size in batch_sizes:
            if size.verdict == "pays":
                sizes.accept(size.rows, seconds=size.seconds)
            else:
                sizes.refuse(size.rows, is_final=size.verdict == "inexact")
        return bool(batch_sizes)

    def pins(self, kind: Kind) -> frozenset[str] | None:
        """Return the modules that were pinned in exact forwards of a kind; None if none is known."""
        for pins in self._of(kind.look).pins:
            if pins == _pins_of(kind, pins.modules):
                return frozenset(pins.modules)
        return None

    def note(self, kind: Kind, verdict: Worth, *, seconds: float, pins: Collection[str] | None) -> None:
        """Keep what was measured for a kind. pins: the modules that make it exact, if any do."""
        size = BatchSize(rows=kind.rows, seconds=seconds, verdict=verdict)
        self._keep(kind, size, [] if pins is None else [_pins_of(kind, pins)])

    def confirm(self, kind: Kind, pins: Collection[str]) -> None:
        """Keep what was known of a kind, with the pins that were proven just now."""
        size = next((size for size in self._of(kind.look).sizes if size.rows == kind.rows), None)
        if size and self._places:
            self._places.num_confirmed += 1
            self._keep(kind, size, [_pins_of(kind, pins)])

    def _of(self, look: Hashable) -> Found:
        name = self._name(look)
        if name is None or self._places is None:
            return Found()
        if name not in self._known:
            self._known[name] = self._places.read(name) or Found()
            if len(self._known) > _HELD:
                self._own.pop(self._known.popitem(last=False)[0], None)
        return self._known[name]

    def _keep(self, kind: Kind, size: BatchSize, pins: list[Pins]) -> None:
        findings, name = self._of(kind.look), self._name(kind.look)
        if name is None or self._places is None:
            return
        new = Found(sizes=[size], pins=pins)
        self._known[name] = united(findings, new)
        self._own[name] = united(self._own.get(name, Found()), new)
        self._places.keep(name, self._own[name])

    def _name(self, look: Hashable) -> str | None:
        """Return the file name for a look; None for a look that no other process can meet."""
        text = repr(look) if self._places and look is not None else ""
        if not text or _ADDRESS.search(text):
            return None
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self._surroundings}/{digest[:32]}"


def _pins_of(kind: Kind, modules: Collection[str]) -> Pins:
    return Pins(
        rows=kind.rows,
        loras=sorted(kind.loras),
        differing=sorted(kind.differing),
        axes=list(kind.axes),
        modules=sorted(modules),
    )


def surroundings(model: Model, batching: Batching) -> str:
    """Return the digest of model, LoRAs, options, libraries, device, driver, threads, settings of torch.

    Whatever may matter is in it: what does not match is only found once more.
    """
    conditions = {
        "model": model_digest(model.digests),  # other weights of the same networks have the same plans
        "loras": {name: [lora.sha256, lora.component] for name, lora in model.settings.loras.items()},
        "numerics": model.settings.numerics(batching.mode),
        "min_gain": batching.min_gain,
        "attention": model.attention.name if model.attention else None,
        "environment": dict(model.environment),
        "torch": _settings_of_torch(),
        "processor": lines_beginning("/proc/cpuinfo", ("flags", "Features")),
        "driver": lines_beginning("/proc/driver/nvidia/version", ("NVRM",)),
        "variables": {
            name: value
            for name, value in os.environ.items()
            if name.startswith((*_PREFIXES, *_PREFIXES_OF_TORCH)) and name != _PLACE
        },
    }
    return hashlib.sha256(canonical_json(conditions).encode()).hexdigest()[:32]


def _settings_of_torch() -> list[Any]:
    matmul, cudnn, mkldnn = torch.backends.cuda.matmul, torch.backends.cudnn, torch.backends.mkldnn
    convolutions: Any = cudnn.conv  # type: ignore[attr-defined]
    products: Any = mkldnn.matmul  # type: ignore[attr-defined]
    return [
        torch.__config__.show(),
        torch.__config__.parallel_info(),
        torch.are_deterministic_algorithms_enabled(),
        # `allow_tf32` and `get_float32_matmul_precision` raise where these were set.
        [matmul.fp32_precision, convolutions.fp32_precision, products.fp32_precision],
        [cudnn.benchmark, cudnn.deterministic],
        [matmul.allow_fp16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction],
        [mkldnn.enabled, mkldnn.deterministic],
        str(torch.backends.cuda.preferred_blas_library()),
    ]
