"""The watermark `spread` in sound: cells of time and frequency that are a little louder or softer.

A tile (payload.py) has 64 times of 40 ms and 60 bands of 125 Hz from 300 Hz on, and repeats as long as the
sound lasts. Each cell is 1.5 dB louder or softer than before. The reader compares the loudness with the
neighbours in time and frequency, and adds up the tiles. Sound with another speed or pitch is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from framefleet.plugins.marks.payload import NUM_BITS, Bits, Reading, Samples, chips

_TIMES, _BANDS = 64, 60
_HOP_S, _HOPS = 0.01, 4  # a cell is 40 ms
_LOWEST_HZ, _WIDTH_HZ = 300.0, 125.0  # up to 7,800 Hz, which 16,000 samples per second can represent
_LOUDER = 10 ** (1.5 / 20)
_CHIPS = chips("spread 1 sound", (_TIMES, _BANDS))
_AT_ONCE = 2048  # windows; 20 s
_SUSPECT = 3.5  # standard deviations of a peak among 256 places; one in twenty readings of noise passes

_Cells: TypeAlias = npt.NDArray[np.float64]


class SpreadSound:
    """Implements `SoundMark` of watermark.py."""

    num_bits = NUM_BITS

    @staticmethod
    def embed(samples: Samples, sample_rate: int, bits: Bits, *, device: str = "cpu") -> Samples:
        """Return the sound with the watermark. bits: 256. device: unused; it takes milliseconds anywhere."""
        gains = _LOUDER ** _CHIPS.tile(bits).astype(np.float64)
        return np.stack([_changed(channel, sample_rate, gains) for channel in samples])

    @staticmethod
    def read(samples: Samples, sample_rate: int) -> Iterator[Reading]:
        loud = _loudness(samples.mean(axis=0), sample_rate)
        if len(loud) < 2 * _HOPS:
            return
        period = _TIMES * _HOPS
        from scipy.ndimage import uniform_filter

        rest = loud - uniform_filter(loud, (8 * _HOPS + 1, 1))
        rest -= uniform_filter(rest, (1, 7))
        usual = np.sqrt(uniform_filter(rest * rest, (16 * _HOPS, 9)).clip(0)) + 0.5
        relative: _Cells = (rest / usual).clip(-2, 2)
        whole = np.pad(relative, ((0, -len(loud) % period), (0, 0)))
        tile = whole.reshape(-1, period, _BANDS).sum(axis=0)
        match = np.fft.irfft((np.fft.rfft(tile, axis=0) * _sync()).sum(axis=1), period)
        best = int(match.argmax())
        if (match[best] - match.mean()) / (match.std() or 1) < _SUSPECT:
            return
        yield Reading(soft=_CHIPS.soft(np.roll(tile, -best, axis=0)[::_HOPS]))


def _changed(channel: npt.NDArray[np.float32], sample_rate: int, gains: _Cells) -> npt.NDArray[np.float32]:
    """Return one channel with each cell of its spectrum multiplied."""
    hop, window = _window(sample_rate)
    sound = _padded(channel, hop)
    changed, weights = np.zeros((2, len(sound)))
    band_of = _band_of(sample_rate, len(window))
    gains = np.pad(gains, ((0, 0), (0, 1)), constant_values=1)  # the last: outside all bands
    for first, windows in _windows(sound, hop, window):
        cells = np.arange(first, first + len(windows)) // _HOPS % _TIMES
        spectra = np.fft.rfft(windows) * gains[cells][:, band_of]
        for number, part in enumerate(np.fft.irfft(spectra, len(window)) * window, first):
            changed[number * hop : number * hop + len(window)] += part
            weights[number * hop : number * hop + len(window)] += window**2
    first = len(window) // 2
    both = slice(first, first + len(channel))
    return (changed[both] / weights[both].clip(1e-3)).astype(np.float32)


def _loudness(sound: npt.NDArray[np.float32], sample_rate: int) -> _Cells:
    """Return the energy of each band in windows of 40 ms, every 10 ms, in dB."""
    hop, window = _window(sample_rate)
    band_of = _band_of(sample_rate, len(window))
    sums = np.zeros((len(band_of), _BANDS + 1))
    sums[np.arange(len(band_of)), band_of] = 1
    parts = [
        np.abs(np.fft.rfft(windows)) ** 2 @ sums[:, :-1]
        for _, windows in _windows(_padded(sound, hop), hop, window)
    ]
    total = np.pad(np.concatenate(parts).cumsum(axis=0), ((1, 0), (0, 0)))
    energy = total[_HOPS:] - total[:-_HOPS]
    return 10 * np.log10(energy + 1e-7 * energy.max(initial=0) + 1e-12)


def _window(sample_rate: int) -> tuple[int, _Cells]:
    hop = max(1, round(_HOP_S * sample_rate))
    return hop, np.hanning(_HOPS * hop + 1)[:-1]


def _padded(sound: npt.NDArray[np.float32], hop: int) -> npt.NDArray[np.float32]:
    return np.pad(sound, (_HOPS * hop // 2, _HOPS * hop))


def _windows(
    sound: npt.NDArray[np.float32], hop: int, window: _Cells
) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    """Yield some windows at a time, with the number of the first one."""
    seen = np.lib.stride_tricks.sliding_window_view(sound, len(window))[::hop]
    for first in range(0, len(seen), _AT_ONCE):
        yield first, seen[first : first + _AT_ONCE] * window


def _band_of(sample_rate: int, length: int) -> npt.NDArray[np.int64]:
    """Return the band of each frequency of a window; the last number means none."""
    band = np.floor((np.fft.rfftfreq(length, 1 / sample_rate) - _LOWEST_HZ) / _WIDTH_HZ)
    return np.where((band >= 0) & (band < _BANDS), band, _BANDS).astype(np.int64)


@cache
def _sync() -> npt.NDArray[np.complex128]:
    spread_out = np.zeros((_TIMES * _HOPS, _BANDS))
    spread_out[::_HOPS] = _CHIPS.tile(None)
    return np.conj(np.fft.rfft(spread_out, axis=0))
