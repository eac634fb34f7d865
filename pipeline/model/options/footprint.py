"""From a preset to the GPU memory that one row of its native size takes, and which offload fits a card.

An estimate: weights are counted, activations are a rule of thumb. Nothing was measured on these cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any, Literal

from framefleet.pipeline.model.families.preset import Preset
from framefleet.pipeline.model.specs.geometry import FRAME_PARAMETERS
from framefleet.pipeline.model.specs.model_index import DENOISERS

OffloadWay = Literal["none", "model", "group"]
OFFLOADS: tuple[OffloadWay, ...] = ("none", "model", "group")  # fastest first
CARDS_GB = (8, 12, 24, 80)
# What a block keeps for each token at its worst moment, in widths of the token: hidden state, residual and
# norm (3), query, key, value, output (4), rotated copies in fp32 (4), a feed-forward four times as wide (5).
WIDTHS = 16
VALUE_BYTES = 2
# What says how many frames are denoised at once.
_CLIP = (*FRAME_PARAMETERS, "segment_frame_length")
# What pipelines bring pictures to whose size they keep.
A_MEGAPIXEL = (1024, 1024)
# CUDA itself, its libraries' workspaces, and the autoencoder at work on one tile.
FIXED_GB = 2.0


def peak_gb(preset: Preset, offload: OffloadWay, row: Mapping[str, Any] | None = None) -> float:
    """Return the most that is on the GPU at once: weights, activations, and what is always there.

    row: arguments of one, where its size is not the native one.
    """
    weights = preset.weights_gb()
    if offload == "none":
        return FIXED_GB + sum(weights.values()) + activations_gb(preset, row)
    held = weights if offload == "model" else preset.held_gb()
    denoising = _largest(held, denoisers=True) + activations_gb(preset, row)
    return FIXED_GB + max(denoising, _largest(held, denoisers=False))


def activations_gb(preset: Preset, row: Mapping[str, Any] | None = None) -> float:
    """Return what the denoiser computes with, for one row: of these arguments, or of the native size."""
    arguments = {**preset.arguments, **(row or {})}
    frames = next((arguments[name] for name in _CLIP if arguments.get(name)), 1)
    height, width = (arguments.get(side) or A_MEGAPIXEL[0] for side in ("height", "width"))
    step, *pixels = preset.token
    tokens = (1 + (int(frames) - 1) // step) * ceil(height / pixels[0]) * ceil(width / pixels[1])
    return tokens * preset.width * WIDTHS * VALUE_BYTES * (2 if preset.joined else 1) / 1e9


def offload_for(preset: Preset, card_gb: float) -> OffloadWay | None:
    """Return the fastest way that fits a card; None when none does."""
    return next((offload for offload in OFFLOADS if peak_gb(preset, offload) <= card_gb), None)


def _largest(held: Mapping[str, float], *, denoisers: bool) -> float:
    return max((gb for name, gb in held.items() if name.startswith(DENOISERS) == denoisers), default=0.0)
