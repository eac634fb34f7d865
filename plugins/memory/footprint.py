"""Compute what is on the GPU at once from the memory of each network, by the options.

A row encodes its text, denoises and decodes. Without an offload, all weights are on the GPU during this; with
one, only the network that computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from framefleet.api.models import DTypeName, is_denoiser
from framefleet.pipeline.model.device_placement import Placement, placer_of
from framefleet.pipeline.model.options.schema import Options
from framefleet.plugins.memory.blank_call import NetworkMemory

OffloadWay = Literal["none", "model", "group"]
OFFLOADS: tuple[OffloadWay, ...] = ("none", "model", "group")  # fastest first
CARDS_GB = (8, 12, 24, 48, 80, 141)
GB = 10**9
# CUDA itself and its libraries' workspaces.
FIXED_GB = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Options of a model that affect its memory. dtype: if different from the job's."""

    offload: OffloadWay = "none"
    vae_tiling: bool = False
    dtype: DTypeName | None = None

    def __str__(self) -> str:
        """Return the options as in a job, e.g. "offload: model, vae_tiling: true"."""
        offload = f"offload: {self.offload}" if self.offload != "none" else ""
        tiling = "vae_tiling: true" if self.vae_tiling else ""
        return ", ".join(filter(None, (offload, tiling, f"dtype: {self.dtype}" if self.dtype else "")))


# Fastest first. Tiling changes pixels along the edges of tiles; offloading changes none.
MEMORY_WAYS = tuple(Way(offload=way, vae_tiling=tiles) for way in OFFLOADS for tiles in (False, True))


def way_of(options: Options) -> Way:
    choice = options.offload
    kind = choice if isinstance(choice, str) else getattr(choice, "type", "none")
    offload: OffloadWay = kind if kind in OFFLOADS else "none"
    return Way(offload=offload, vae_tiling=options.vae_tiling)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The memory of one row. networks: by component. missing: why not all of it was counted."""

    networks: Mapping[str, NetworkMemory]
    missing: str = ""

    @property
    def weights_gb(self) -> float:
        return sum(one.weights for one in self.networks.values()) / GB

    @property
    def activations_gb(self) -> float:
        """Activations of the denoisers."""
        peaks = (one.peak for name, one in self.networks.items() if is_denoiser(name))
        return max(peaks, default=0) / GB

    @property
    def decoding_gb(self) -> float:
        return max((one.peaks.get("decode", 0) for one in self.networks.values()), default=0) / GB

    @property
    def encoding_gb(self) -> float:
        """Activations of encoders of text, images and videos."""
        encoders = (one for name, one in self.networks.items() if not is_denoiser(name))
        sizes = (size for one in encoders for call, size in one.peaks.items() if call != "decode")
        return max(sizes, default=0) / GB

    def placed_gb(self, placement: Placement, num: int) -> float:
        """Return the peak on one of several GPUs."""
        spread = placer_of(placement, "cuda").spread
        shares = spread({name: one.weights for name, one in self.networks.items()}, num)
        peaks = [
            sum(share.values()) + max((self.networks[name].peak for name in share), default=0)
            for share in shares
        ]
        return FIXED_GB + max(peaks) / GB

    def peak_gb(self, offload: OffloadWay) -> float:
        """Return the peak on the GPU: weights, activations, and libraries."""
        computing = {name: one.peak for name, one in self.networks.items()}
        if offload == "none":
            return FIXED_GB + self.weights_gb + max(computing.values(), default=0) / GB
        there = {name: one.weights if offload == "model" else one.held for name, one in self.networks.items()}
        return FIXED_GB + max((there[name] + computing[name] for name in there), default=0) / GB
