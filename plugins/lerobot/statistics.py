"""Compute statistics of a feature for LeRobot's meta/: min, max, mean, std, count, quantiles such as q01."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from framefleet.api.clips import Frames

USUAL_STATISTICS = ("min", "max", "mean", "std", "count")
Histogram: TypeAlias = npt.NDArray[np.int64]  # (3, 256): number of pixels by channel and value


def histogram_of(frames: Frames) -> Histogram:
    """Count the pixels by channel and value. frames: (T, H, W, 3)."""
    counts = np.zeros((3, 256), np.int64)
    for frame in frames:
        for channel in range(3):
            counts[channel] += np.bincount(frame[..., channel].ravel(), minlength=256)
    return counts


def statistics_of(values: npt.NDArray[Any], counts: npt.NDArray[Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the named statistics of ascending values, (N,), with their counts."""
    values, counts = values[counts > 0].astype(float), counts[counts > 0]
    mean = np.average(values, weights=counts)
    statistics = {
        "min": values[0],
        "max": values[-1],
        "mean": mean,
        "std": np.sqrt(np.average((values - mean) ** 2, weights=counts)),
        "count": counts.sum(),
    }
    below, total = counts.cumsum(), counts.sum()
    for name in names:
        if name not in statistics and name[:1] == "q" and name[1:].isdecimal():
            share = min(1.0, int(name[1:]) / 100)
            statistics[name] = values[np.searchsorted(below, share * total)]
    return {name: statistics[name].item() for name in names if name in statistics}


def pixel_statistics(histogram: Histogram, num_frames: int, names: Sequence[str]) -> dict[str, Any]:
    """Return the statistics of a camera's pixels in [0, 1], in LeRobot's shape: (3, 1, 1)."""
    channels = [statistics_of(np.arange(256) / 255, counts, names) for counts in histogram]
    shaped: dict[str, Any] = {name: [[[of[name]]] for of in channels] for name in channels[0]}
    return {name: [num_frames] if name == "count" else value for name, value in shaped.items()}
