"""From a preset to the GPU memory that one row takes, and which options fit a card.

An estimate: weights and decoders are counted, activations of denoisers are a rule of thumb. Nothing was
measured on these cards. `python -m tests.decoders` prints the counts that decoders are fitted to, made on the
meta device with diffusers 0.42: every tensor that is alive, without workspaces of kernels and fragments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, Literal, NamedTuple

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


_TILED_PIXEL_FRAME = 4.2  # what is done by then, in two copies


class DecoderMemory(NamedTuple):
    """Numbers of values that a decoder needs."""

    pixel: float
    pixel_frame: float  # of a pixel of each frame
    tile: float | None = None  # None where tiles are as large as frames
    tile_frame: float = 0.0  # of each frame of a tile
    still: float | None = None  # of a pixel of one picture

    def gb(self, height: int, width: int, frames: int, *, value_bytes: int, tiling: bool) -> float:
        """Return gigabytes for one clip, or one picture where frames is 1."""
        pixels = height * width
        values = pixels * (
            self.still if self.still and frames == 1 else self.pixel + self.pixel_frame * frames
        )
        if tiling and self.tile is not None:
            done = _TILED_PIXEL_FRAME * pixels * frames
            values = min(values, self.tile + self.tile_frame * frames + done)
        return values * value_bytes / 1e9


# By millions of parameters, as presets count them: no two kinds have as many. Most videos are decoded a few
# latent frames at a time, so that little grows with their length; not by HunyuanVideo 1.5, LTX and Mochi.
DECODERS = {
    127: DecoderMemory(5060, 3.1, tile=0.331e9, still=1731),  # Wan 2.1, Qwen-Image
    705: DecoderMemory(5378, 3.1, tile=0.353e9),  # Wan 2.2 5B
    246: DecoderMemory(19630, 4.1, tile=1.29e9),  # HunyuanVideo, Kandinsky 5, Open-Sora
    1261: DecoderMemory(0, 898, tile=0.0, tile_frame=0.0586e9),  # HunyuanVideo 1.5
    216: DecoderMemory(22890, 0.1, tile=1.96e9),  # CogVideoX
    419: DecoderMemory(10, 50, tile=0.0, tile_frame=0.0116e9),  # LTX
    1222: DecoderMemory(50, 42.2, tile=0.0, tile_frame=0.0029e9),  # LTX 2
    460: DecoderMemory(2380, 912, tile=0.239e9, tile_frame=0.0416e9),  # Mochi
    84: DecoderMemory(0, 771),  # Stable Diffusion, Flux and what shares their autoencoder
    312: DecoderMemory(0, 833),  # Sana
}


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
