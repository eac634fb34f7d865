"""In: `loss.jsonl` of an output. Out: `loss.png` next to it: the losses, and the line that they follow."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.training.reports import read_losses

_PATH = "loss.png"
CURVE_SIZE, _DPI = (960, 540), 100  # pixels
_RAW, _SMOOTH, _GRID = "#b7ccf0", "#1f57b8", "#e2e4e9"
# The line is a mean over this part of all steps to both sides, and at least over this many.
_SMOOTHED_SHARE, _SMOOTHED = 50, 3

_Values = npt.NDArray[np.float64]


def write_loss_curve(store: Store) -> None:
    """Draw what there is; nothing where there is no step yet."""
    steps = read_losses(store)
    if steps:
        store.write(_PATH, loss_curve([step.loss for step in steps]))


def loss_curve(losses: Sequence[float]) -> bytes:
    """Return a PNG of losses by step, on a logarithmic axis."""
    raw = np.maximum(np.asarray(losses, dtype=np.float64), 1e-12)
    low, high = np.quantile(raw, [0.005, 0.995])  # a single odd step must not flatten all others
    margin = max((high / low) ** 0.05, 1.02)
    figure = Figure(figsize=(CURVE_SIZE[0] / _DPI, CURVE_SIZE[1] / _DPI), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot(yscale="log", xlabel="steps", ylabel="loss", ylim=(low / margin, high * margin))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(axis="y", which="both", color=_GRID)
    steps, marker = np.arange(1, len(raw) + 1), "." if len(raw) == 1 else ""
    axes.plot(steps, raw, marker=marker, color=_RAW, linewidth=1)
    axes.plot(steps, _smoothed(raw), marker=marker, color=_SMOOTH, linewidth=2)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _smoothed(values: _Values) -> _Values:
    """Return the mean around each value, of this many to both sides."""
    half = max(len(values) // _SMOOTHED_SHARE, _SMOOTHED)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - half, 0)
    last = np.minimum(np.arange(len(values)) + half + 1, len(values))
    smoothed: _Values = (sums[last] - sums[first]) / (last - first)
    return smoothed
