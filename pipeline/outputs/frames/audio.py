"""In: what stands for sound in an output. Out: samples and their rate, and their digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from framefleet.pipeline.errors import RenderError

Pcm: TypeAlias = npt.NDArray[np.int16]  # (samples, channels), C-contiguous: as the data of a wav file

_MAX_CHANNELS = 2  # layouts of more have names, which no output tells
_MAX_RATE = 655_350  # of FLAC


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    samples: npt.NDArray[np.float32]  # (channels, samples), in [-1, 1]
    sample_rate: int  # in Hz

    @property
    def num_channels(self) -> int:
        return int(self.samples.shape[0])

    @property
    def duration_s(self) -> float:
        return float(self.samples.shape[1] / self.sample_rate)

    def pcm(self) -> Pcm:
        """Return 16-bit PCM: `(clip(x, -1, 1) * 32767).round()`, little-endian, channels side by side."""
        scaled = (self.samples.T.clip(-1, 1) * np.float32(32767)).round()
        return np.ascontiguousarray(scaled.astype("<i2"))


def to_audio(value: Any, sample_rate: Any) -> Audio:
    """Return the one sound in `value`: floats (channels, samples) or (samples,). Raises RenderError."""
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if hasattr(value, "detach"):  # a torch tensor; torch itself need not be imported here
        value = value.detach().cpu().float().numpy()
    array = np.asarray(value) if isinstance(value, np.ndarray) else np.empty(0, dtype=object)
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    samples = array[None] if array.ndim == 1 else array
    is_sound = samples.ndim == 2 and np.issubdtype(samples.dtype, np.floating)
    if not is_sound or not 1 <= samples.shape[0] <= _MAX_CHANNELS or not samples.shape[1]:
        raise RenderError(
            f"the recipe returned sound of type {type(value).__name__} and shape {array.shape}, "
            "not one of floats (channels, samples)",
            "return one or two channels of one sound; use one row per seed",
        )
    if not np.isfinite(samples).all():
        raise RenderError("the sound contains NaN or infinity", "use dtype bf16 or fp32: fp16 overflows")
    if type(sample_rate) is not int or not 1 <= sample_rate <= _MAX_RATE:
        fix = f"return `sample_rate` with it, 1 to {_MAX_RATE} Hz, where no component says one"
        raise RenderError(f"the recipe returned sound with a rate of {sample_rate!r}", fix)
    return Audio(samples=np.ascontiguousarray(samples, dtype=np.float32), sample_rate=sample_rate)


def audio_sha256(audio: Audio) -> str:
    """Return SHA-256 over the ASCII line `int16 SAMPLESxCHANNELS RATE\\n`, then the bytes of `pcm`."""
    num_channels, num_samples = audio.samples.shape
    digest = hashlib.sha256(f"int16 {num_samples}x{num_channels} {audio.sample_rate}\n".encode("ascii"))
    digest.update(audio.pcm().data)
    return digest.hexdigest()


def sample_rate_of(components: Any) -> int | None:
    """Return the rate of what the components of a pipeline make, by name; None where none says one.

    What makes samples from a spectrum says it where there is one: an autoencoder of spectra has a rate of
    its own, as LTX-2's, whose vocoder gives another.
    """
    order = ("vocoder", "audio_vae", "sound_tokenizer", "vae")
    for name in [*(name for name in order if name in components), *sorted({*components} - {*order})]:
        config = getattr(components[name], "config", None)
        for key in ("output_sampling_rate", "sampling_rate", "sample_rate"):
            rate = getattr(config, key, None)
            if isinstance(rate, int):
                return rate
    return None
