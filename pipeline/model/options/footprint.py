"""From a preset to the GPU memory that one row takes, and which options fit a card.

An estimate: weights and decoders are counted, activations of denoisers are a rule of thumb. Nothing was
measured on these cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, Literal

from framefleet.pipeline.model.families.autoencoders import DECODERS
from framefleet.pipeline.model.families.family import BYTES, Preset
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.specs.dtypes import DTypeName
from framefleet.pipeline.model.specs.model_index import DENOISERS
from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS

OffloadWay = Literal["none", "model", "group"]
OFFLOADS: tuple[OffloadWay, ...] = ("none", "model", "group")  # fastest first
CARDS_GB = (8, 12, 24, 48, 80, 141)
# What a block keeps for each token at its worst moment, in widths of the token: hidden state, residual and
# norm (3), query, key, value, output (4), rotated copies in fp32 (4), a feed-forward four times as wide (5).
WIDTHS = 16
VALUE_BYTES = 2
# What says how many frames are denoised at once.
_CLIP = (*FRAME_PARAMETERS, "segment_frame_length")
# What pipelines bring pictures to whose size they keep.
A_MEGAPIXEL = (1024, 1024)
# CUDA itself and its libraries' workspaces.
FIXED_GB = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Options of a model that decide how much memory it takes. dtype: another than the job's."""

    offload: OffloadWay = "none"
    vae_tiling: bool = False
    dtype: DTypeName | None = None

    def __str__(self) -> str:
        """Return it as in a job: "offload: model, vae_tiling: true"."""
        offload = f"offload: {self.offload}" if self.offload != "none" else ""
        tiling = "vae_tiling: true" if self.vae_tiling else ""
        return ", ".join(filter(None, (offload, tiling, f"dtype: {self.dtype}" if self.dtype else "")))


# Fastest first; tiles change pixels along their edges, offloading changes none.
MEMORY_WAYS = tuple(Way(offload=way, vae_tiling=tiles) for way in OFFLOADS for tiles in (False, True))


def way_of(options: Options) -> Way:
    """Return what a job asks for."""
    choice = options.offload
    kind = choice if isinstance(choice, str) else getattr(choice, "type", "none")
    offload: OffloadWay = kind if kind in OFFLOADS else "none"
    return Way(offload=offload, vae_tiling=options.vae_tiling)


def row_size(row: Mapping[str, Any], preset: Preset | None, options: Options) -> float:
    """Return what grows with the memory that a row takes: to compare rows of one model."""
    if preset:
        return peak_gb(preset, way_of(options), row)
    return float(prod(row.get(name) or 1 for name in (*FRAME_PARAMETERS, "height", "width")))


def peak_gb(preset: Preset, way: Way, row: Mapping[str, Any] | None = None) -> float:
    """Return the most that is on the GPU at once: weights, what computes, and what is always there.

    row: arguments of one, where its size is not the native one.
    """
    denoising, decoding = activations_gb(preset, row), decoding_gb(preset, row, tiling=way.vae_tiling)
    weights = preset.weights_gb()
    if way.offload == "none":
        return FIXED_GB + sum(weights.values()) + max(denoising, decoding)
    loaded = weights if way.offload == "model" else preset.held_gb()
    return FIXED_GB + max(
        _largest(loaded, denoisers=True) + denoising,
        _largest(loaded, denoisers=False),
        loaded.get("vae", 0.0) + decoding,
    )


def decoding_gb(preset: Preset, row: Mapping[str, Any] | None = None, *, tiling: bool = False) -> float:
    """Return what the decoder computes with, for one row."""
    decoder = DECODERS.get(preset.parameters.get("vae", 0))
    if decoder is None:
        return 1.0  # for one tile
    frames, height, width = _size(preset, row)
    value_bytes = BYTES[preset.dtypes.get("vae", preset.dtype)]
    return decoder.gb(height, width, frames, value_bytes=value_bytes, tiling=tiling)


def activations_gb(preset: Preset, row: Mapping[str, Any] | None = None) -> float:
    """Return what the denoiser computes with, for one row: of these arguments, or of the native size."""
    frames, height, width = _size(preset, row)
    step, *pixels = preset.token
    tokens = (1 + (frames - 1) // step) * ceil(height / pixels[0]) * ceil(width / pixels[1])
    return tokens * preset.width * WIDTHS * VALUE_BYTES * (2 if preset.joined else 1) / 1e9


def ways_for(preset: Preset, card_gb: float, row: Mapping[str, Any] | None = None) -> list[Way]:
    """Return all ways that fit a card, the fastest first; tiles only where they save memory."""
    saves = decoding_gb(preset, row, tiling=True) < decoding_gb(preset, row)
    return [way for way in MEMORY_WAYS if way.vae_tiling <= saves and peak_gb(preset, way, row) <= card_gb]


def _size(preset: Preset, row: Mapping[str, Any] | None) -> tuple[int, int, int]:
    """Return frames, height and width of a row, or the native ones."""
    arguments = {**preset.arguments, **(row or {})}
    frames = next((arguments[name] for name in _CLIP if arguments.get(name)), 1)
    height, width = (int(arguments.get(side) or A_MEGAPIXEL[0]) for side in ("height", "width"))
    return int(frames), height, width


def _largest(held: Mapping[str, float], *, denoisers: bool) -> float:
    return max((gb for name, gb in held.items() if name.startswith(DENOISERS) == denoisers), default=0.0)
