"""From a model, the sizes of its rows and a card to whether they fit: an estimate, without weights."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from framefleet.jobs.plan.graphics import gpus_here
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.units import read_bytes
from framefleet.pipeline.model.families.preset import Preset
from framefleet.pipeline.model.options.footprint import OFFLOADS, OffloadWay, activations_gb, peak_gb
from framefleet.pipeline.model.settings import ModelSettings
from framefleet.pipeline.model.sources.selection import is_weights
from framefleet.pipeline.model.sources.weights import Weights

GB = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What one row of the largest shape takes, in gigabytes.

    weights_gb: of all components. activations_gb: of the denoiser; None where the model's widths are not
    known. peak_gb: at once, with the job's `offload`. has_gb: of the place; None: not known. place: the
    GPU, or this machine. offload: the fastest that fits, where the job's own does not; None: none does.
    """

    weights_gb: float
    activations_gb: float | None
    peak_gb: float
    has_gb: float | None
    place: str
    offload: OffloadWay | None

    @property
    def fits(self) -> bool | None:
        """Whether it does; None where that is not known."""
        return None if self.has_gb is None else self.peak_gb <= self.has_gb


def read_memory(text: str | int) -> int:
    """Return the bytes that "24GB" stands for. Raises JobError."""
    try:
        return read_bytes(text)
    except ValueError as error:
        raise JobError(f"the GPU's memory is {text!r:.40}", f"it must be {error}") from None


def memory_of(
    settings: ModelSettings,
    weights: Weights,
    preset: Preset | None,
    shapes: Iterable[Mapping[str, Any]],
    *,
    gpu_memory: int | None,
    is_on_cpu: bool,
) -> Memory:
    """Return the estimate. shapes: arguments of one row of each. gpu_memory: of a card, in bytes."""
    place, has_gb = _place(gpu_memory, is_on_cpu=is_on_cpu)
    if preset is None:
        found = sum(weights.source.files[file].size for file in weights.files if is_weights(file)) / GB
        return Memory(
            weights_gb=found,
            activations_gb=None,
            peak_gb=found,
            has_gb=has_gb,
            place=place,
            offload=None,
        )
    as_loaded = _with_dtype(preset, settings, is_on_cpu=is_on_cpu)
    largest = max(shapes, key=lambda row: activations_gb(as_loaded, row), default={})
    own = _offload(settings)
    fitting = (way for way in OFFLOADS if has_gb and peak_gb(as_loaded, way, largest) <= has_gb)
    return Memory(
        weights_gb=sum(as_loaded.weights_gb().values()),
        activations_gb=activations_gb(as_loaded, largest),
        peak_gb=peak_gb(as_loaded, own, largest),
        has_gb=has_gb,
        place=place,
        offload=next(fitting, None),
    )


def _place(gpu_memory: int | None, *, is_on_cpu: bool) -> tuple[str, float | None]:
    if gpu_memory is not None:
        return "the GPU", gpu_memory / GB
    if is_on_cpu:
        return "this machine", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    gpus = gpus_here()
    return "the GPU", min(gpus) / GB if gpus else None


def _with_dtype(preset: Preset, settings: ModelSettings, *, is_on_cpu: bool) -> Preset:
    """Return the preset with the dtypes that the job asks for."""
    dtype = settings.dtype
    if dtype == "auto":
        return replace(preset, dtype="fp32", dtypes={}) if is_on_cpu else preset
    if isinstance(dtype, str):
        return replace(preset, dtype=dtype, dtypes={})
    rest = {name: value for name, value in dtype.items() if name != "default"}
    return replace(preset, dtype=dtype.get("default", preset.dtype), dtypes={**preset.dtypes, **rest})


def _offload(settings: ModelSettings) -> OffloadWay:
    asked = settings.options.offload
    kind = asked if isinstance(asked, str) else getattr(asked, "type", "none")
    return kind if kind in OFFLOADS else "none"
