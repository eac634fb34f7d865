"""From a model, the sizes of its rows and a card to whether they fit: an estimate, without weights."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.model.families.family import Preset
from framefleet.pipeline.model.model import TEXT_ENCODERS, ModelSettings
from framefleet.pipeline.model.options.footprint import (
    FIXED_GB,
    OFFLOADS,
    Way,
    activations_gb,
    decoding_gb,
    peak_gb,
    way_of,
    ways_for,
)
from framefleet.pipeline.model.sources.weights import Weights
from framefleet.pipeline.text import read_bytes

GB = 10**9
_ASK_S = 5.0  # of a driver that hangs
_ASK = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What one row of the largest shape takes, in gigabytes."""

    weights_gb: float  # of all components
    activations_gb: float | None  # of the denoiser; None where the model's widths are not known
    peak_gb: float  # at once, with the job's options
    has_gb: float | None  # of the place; None: not known
    place: str  # the GPU, or this machine
    ways: tuple[Way, ...] = ()  # those that fit and need no option for nothing, the fastest first
    decoding_gb: float = 0.0
    measured_gb: float | None = None  # the peak, as a worker's rehearsal found it; None: there was none
    encoders_gb: float = 0.0  # of text encoders on GPUs of their own, which the others do not count

    @property
    def fits(self) -> bool | None:
        """Whether it does, by what was measured if anything was; None where that is not known."""
        peak_gb = self.peak_gb if self.measured_gb is None else self.measured_gb
        return None if self.has_gb is None else max(peak_gb, self.encoders_gb) <= self.has_gb


def read_memory(text: str | int) -> int:
    """Return the bytes that "24GB" or "24" stands for. Raises JobError."""
    try:
        return read_bytes(f"{text}GB" if str(text).isdecimal() and len(str(text)) < 4 else text)
    except ValueError as error:
        raise JobError(f"the GPU's memory is {text!r:.40}", f"it must be {error}") from None


def memory_of(
    settings: ModelSettings,
    weights: Weights,
    preset: Preset | None,
    largest: Mapping[str, Any],
    *,
    gpu_memory: int | None,
    is_on_cpu: bool,
    share: float = 1.0,
    measured_bytes: int | None = None,
    has_encoders: bool = False,
) -> Memory:
    """Return the estimate, and what was measured.

    largest: arguments of the largest row. gpu_memory: of a card, in bytes. share: what a worker has of it.
    measured_bytes: what such a row held at once. has_encoders: whether text is encoded on other GPUs.
    """
    measured_gb = None if measured_bytes is None else measured_bytes / GB + FIXED_GB
    place, has_gb = _place(gpu_memory, is_on_cpu=is_on_cpu, share=share)
    if preset is None:
        stored_gb = weights.stored_bytes(but="text_encoder" if has_encoders else "-") / GB  # "-": of none
        return Memory(
            encoders_gb=weights.stored_bytes() / GB - stored_gb,
            weights_gb=stored_gb,
            activations_gb=None,
            peak_gb=stored_gb,
            has_gb=has_gb,
            place=place,
            measured_gb=measured_gb,
        )
    as_loaded = _with_dtype(preset, settings, is_on_cpu=is_on_cpu)
    encoders_gb = 0.0
    if has_encoders:
        encoders_gb = sum(gb for name, gb in as_loaded.weights_gb().items() if name.startswith(TEXT_ENCODERS))
        left = {name: n for name, n in as_loaded.parameters.items() if not name.startswith(TEXT_ENCODERS)}
        as_loaded = replace(as_loaded, parameters=left)
    own = way_of(settings.options)
    computed_gb = peak_gb(as_loaded, own, largest)
    missed_gb = 0.0 if measured_gb is None else measured_gb - computed_gb  # with other options, as much
    return Memory(
        encoders_gb=encoders_gb,
        weights_gb=sum(as_loaded.weights_gb().values()),
        activations_gb=activations_gb(as_loaded, largest),
        peak_gb=computed_gb,
        measured_gb=measured_gb,
        has_gb=has_gb,
        place=place,
        ways=tuple(
            way
            for way in (_fitting(as_loaded, has_gb - missed_gb, largest) if has_gb else ())
            if way.offload == "none" or not has_encoders
        ),
        decoding_gb=decoding_gb(as_loaded, largest, tiling=own.vae_tiling),
    )


def _place(gpu_memory: int | None, *, is_on_cpu: bool, share: float) -> tuple[str, float | None]:
    if is_on_cpu:
        return "this machine", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    card = gpu_memory if gpu_memory is not None else min(gpus_here(), default=None)
    place = "the GPU" if share == 1 else f"a worker's share ({share:g}) of the GPU"
    return place, None if card is None else card / GB * share


def _with_dtype(preset: Preset, settings: ModelSettings, *, is_on_cpu: bool) -> Preset:
    """Return the preset with the dtypes that the job asks for."""
    dtype = settings.dtype
    if dtype == "auto":
        return replace(preset, dtype="fp32", dtypes={}) if is_on_cpu else preset
    if isinstance(dtype, str):
        return replace(preset, dtype=dtype, dtypes={})
    rest = {name: value for name, value in dtype.items() if name != "default"}
    return replace(preset, dtype=dtype.get("default", preset.dtype), dtypes={**preset.dtypes, **rest})


def _fitting(preset: Preset, has_gb: float, row: Mapping[str, Any]) -> list[Way]:
    half = replace(preset, dtype="bf16", dtypes={})
    others = [] if half.weights_gb() == preset.weights_gb() else ways_for(half, has_gb, row)
    fit = [*ways_for(preset, has_gb, row), *(replace(way, dtype="bf16") for way in others)]
    return [way for way in fit if not any(other != way and _costs_less(other, way) for other in fit)]


def _costs_less(one: Way, other: Way) -> bool:
    """Whether all that one needs the other needs too, or more of it."""
    values = [(OFFLOADS.index(way.offload), way.vae_tiling, way.dtype is not None) for way in (one, other)]
    return all(mine <= its for mine, its in zip(*values, strict=True))


@functools.cache
def gpus_here() -> tuple[int, ...]:
    """Return the memory of each in bytes; none without NVIDIA's driver."""
    try:
        printed = subprocess.run(_ASK, capture_output=True, text=True, timeout=_ASK_S, check=True).stdout
        return tuple(int(line) * 2**20 for line in printed.split())
    except (OSError, subprocess.SubprocessError, ValueError):  # no driver, or it is not well
        return ()
