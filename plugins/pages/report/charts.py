"""Draw the charts of a report as SVG, with colours from the page's style.

Bars have hatches and numbers, so that charts can be read without colours. Text is never read as formulas.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from framefleet.api.commands import duration
from framefleet.api.errors import JobError, escaped, rounded
from framefleet.plugins.pages.report.values import ModelTime, Throughput

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer
    from matplotlib.figure import Figure
except ModuleNotFoundError:
    raise JobError("the charts of a report need matplotlib", "pip install 'framefleet[pages]'") from None

# Placeholder colours, replaced by variables of the page's style.
_INK, _MUTED, _LINE, _CARD = "#010101", "#020202", "#030303", "#040404"
SERIES = ("#050505", "#060606", "#070707", "#080808", "#090909", "#0a0a0a")
_VARIABLES = dict(zip((_INK, _MUTED, _LINE, _CARD), ("ink", "muted", "line", "card"), strict=True)) | {
    colour: f"series-{number}" for number, colour in enumerate(SERIES)
}
HATCHES = ("", "///", "---", "xx", "\\\\\\", "++")  # of lines: dots would be hundreds of kB
WIDTH_IN, POINTS = 4.6, 9.5  # 331 points: on a phone as wide as its screen, letters of nine pixels
MAX_BARS = 12
_MIN_SHOWN_S = 0.5
_MAX_NAME = 22  # characters of a bar's name
ADOPTED = "adopted"  # clips whose driver died before their record: their worker is unknown
_LEGEND: dict[str, Any] = {"ncols": 2, "frameon": False, "fontsize": POINTS - 1, "handleheight": 1.2}
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "framefleet",
    "font.family": ["sans-serif"],
    "font.size": POINTS,
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "xtick.color": _MUTED,
    "ytick.color": _INK,
    "hatch.color": _CARD,
    "hatch.linewidth": 1.2,
}


def throughput_chart(throughput: Throughput) -> str:
    """Return rows by time, and their mean."""
    bins = throughput.bins
    unit_s, unit = rate_unit(throughput.bin_s)
    rates = [one.rows * unit_s / throughput.bin_s for one in bins]
    mean = mean_rate(throughput)

    def draw(axes: Axes) -> None:
        first = bins[0].start
        along = [(one.start - first).total_seconds() / 60 for one in bins]
        axes.bar(along, rates, width=throughput.bin_s / 60, align="edge", color=SERIES[0])
        axes.axhline(mean, color=_INK, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_xlabel("minutes since the first row was done")
        axes.set_ylabel(f"rows per {unit}")
        axes.set_ylim(0, max(rates) * 1.15)
        axes.grid(axis="y", color=_LINE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines["bottom"].set_visible(False)

    return _svg(draw, height_in=2.5, label=f"Rows per {unit} over time; mean {rounded(mean)}")


def bars_chart(
    values: Sequence[tuple[str, float]], numbers: Sequence[str], *, what: str, series: Sequence[int]
) -> str:
    """Return a bar for each name with its number, in these colours. what: a title for screen readers."""
    names = [_short(name) for name, _ in values]

    def draw(axes: Axes) -> None:
        bars = axes.barh(
            range(len(names)),
            [value for _, value in values],
            color=[SERIES[number] for number in series],
            hatch=[HATCHES[number] for number in series],
            height=0.7,
        )
        axes.bar_label(bars, list(numbers), padding=4)
        _named_rows(axes, names)
        axes.margins(x=0.3)

    listed = ", ".join(f"{name}: {number}" for (name, _), number in zip(values, numbers, strict=True))
    return _svg(draw, height_in=0.45 + 0.3 * len(names), label=f"{what}: {listed}")


def workers_chart(work: ModelTime) -> str:
    """Return for each worker the seconds of its model, computing and idle by cause."""
    workers = work.workers[:MAX_BARS]
    causes = list(work.idle)[: len(SERIES) - 2]
    kinds = ["computing", *(f"idle: {cause}" for cause in causes), "idle: other"]
    parts = []  # seconds of computing, of being idle by these causes, and by others
    for one in workers:
        idle = [one.idle.get(cause, 0.0) for cause in causes]
        parts.append([one.busy_s, *idle, max(0.0, one.idle_s - sum(idle))])
    names = [one.name or ADOPTED for one in workers]

    def draw(axes: Axes) -> None:
        starts = [0.0] * len(workers)
        for number, kind in enumerate(kinds):
            lengths = [part[number] for part in parts]
            if number == 0 or max(lengths) >= _MIN_SHOWN_S:
                bars: BarContainer = axes.barh(
                    range(len(workers)),
                    lengths,
                    left=starts,
                    height=0.7,
                    color=SERIES[number],
                    hatch=HATCHES[number],
                    label=_short(kind),
                )
            starts = [start + length for start, length in zip(starts, lengths, strict=True)]
        worked = []
        for one in workers:
            whole = one.busy_s + one.idle_s
            spent = f"{whole / 3600:,.1f} h" if whole >= 36_000 else duration(whole)
            worked.append(f"{spent}, idle {one.idle_s / whole:.1%}" if whole else "0")
        axes.bar_label(bars, worked, padding=4, fontsize=POINTS - 1)
        _named_rows(axes, [_short(name) for name in names])
        axes.margins(x=0.42)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.02), **_LEGEND)

    legend_in = 0.22 * ((len(kinds) + 1) // 2)
    pairs = zip(names, workers, strict=True)
    label = ", ".join(f"{name}: {one.busy_s:.0f} s computing, {one.idle_s:.0f} s idle" for name, one in pairs)
    return _svg(draw, height_in=0.4 + 0.32 * len(workers) + legend_in, label=f"Time of workers: {label}")


def _svg(draw: Callable[[Axes], None], *, height_in: float, label: str) -> str:
    """Return what `draw` draws as an element of HTML. label: the same in words, for screen readers."""
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # the page's reader has fonts of its own
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained", frameon=False)
        axes = figure.add_subplot(frame_on=True)
        axes.patch.set_visible(False)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0)
        draw(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    # The drawing without its own colours, background, size and document type.
    svg = text.getvalue()
    svg = escaped(svg[svg.index("<svg") :])
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for colour, name in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # equal in all drawings of the page
    size = re.compile(r'(<svg [^>]*?) (?:width|height)="[\d.]+pt"')
    svg = size.sub(r"\1", size.sub(r"\1", svg, count=1), count=1)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(escaped(label[:2000]))}" ', 1)


def _named_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)  # the first one on top, and bars of one height in every chart
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)


def _short(name: str) -> str:
    shown = escaped(name).replace("\n", " ")
    return shown if len(shown) <= _MAX_NAME else f"{shown[: _MAX_NAME - 1]}…"


def mean_rate(throughput: Throughput) -> float:
    """Return rows in the unit of time that its chart has, from the start of the first row to the last end."""
    unit_s, _ = rate_unit(throughput.bin_s)
    rows = sum(one.rows for one in throughput.bins)
    return rows * unit_s / (throughput.wall_s or throughput.bin_s * len(throughput.bins))


def rate_unit(bin_s: int) -> tuple[int, str]:
    """Return the unit of time in which a rate is a number that people read."""
    return next(((s, name) for s, name in ((60, "minute"), (3600, "hour")) if bin_s <= s), (86_400, "day"))
