"""What a terminal or a log shows of a running job: counts, rate, time left, workers.

The same figures are served for Prometheus to scrape. In a Ray cluster, Ray exports them too.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Self, cast

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from framefleet.cluster.driver.progress import Progress, WorkerState, num_rendering
from framefleet.jobs.show.console import EscapingConsole
from framefleet.jobs.show.watch import Awaited, Callback, Checked, Standing, Watch, headline
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.metrics import METRICS

if TYPE_CHECKING:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector

# The log of a week-long job stays readable; a terminal is redrawn often enough for the eye.
LINE_EVERY_S = 5.0
REDRAWS_PER_S = 4
# More do not fit a terminal; the rest is counted.
MAX_WORKERS_SHOWN = 12
BAR_WIDTH = 20  # leaves room for the headline on 80 columns
STYLES = {"rendering": "green", "idle": "dim", "drained": "dim", "starting": "yellow", "lost": "red"}


class _Once:
    """Prints each text once, unless it should be repeated."""

    def __init__(self, console: EscapingConsole) -> None:
        self._console = console
        self._printed: set[str] = set()

    def __contains__(self, text: str) -> bool:
        return text in self._printed

    def say(self, text: str, *, again: bool = False) -> None:
        if again:
            self._console.say(text)
        elif text not in self._printed:
            self._printed.add(text)
            self._console.say(text)


class Lines:
    """Plain lines, for logs and pipes. The first and the last progress are always shown.

    Messages about a step, a wait or a check appear once: several runs of a job open the same model and table.
    """

    def __init__(self, console: EscapingConsole, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lines = _Once(console)
        self._clock = clock
        self._last_at = -math.inf
        self._hidden, self._is_again = "", False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._show_hidden()

    def say(self, text: str) -> None:
        self._show_hidden()
        self._lines.say(text)

    def show(self, standing: Standing) -> None:
        text, now = headline(standing), self._clock()
        if isinstance(standing, Progress) and standing.workers:  # on a terminal these have lines of their own
            text += f", workers rendering: {num_rendering(standing.workers)}"
        is_due = now - self._last_at >= LINE_EVERY_S
        if isinstance(standing, Awaited):  # once, and then every few seconds for how long already
            if standing.what not in self._lines:
                text = standing.what
            elif not is_due or time.monotonic() - standing.since < LINE_EVERY_S:
                return
            self._last_at = now
            self.say(text)
        elif is_due:
            self._last_at, self._hidden = now, ""
            self._lines.say(text, again=isinstance(standing, Progress))
        else:
            self._hidden, self._is_again = text, isinstance(standing, Progress)

    def _show_hidden(self) -> None:
        """Show the last progress, as the next message is about what comes after it."""
        if self._hidden:
            self._lines.say(self._hidden, again=self._is_again)
            self._hidden = ""


class Screen:
    """A display that is redrawn in place, for terminals. Messages above it appear once, as in `Lines`."""

    def __init__(self, console: EscapingConsole) -> None:
        self._lines = _Once(console)
        self._standing: Standing | None = None
        self._live = Live(
            console=console,
            refresh_per_second=REDRAWS_PER_S,
            get_renderable=lambda: Text("") if (now := self._standing) is None else picture(now),
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        self._standing = None
        self._lines.say(text)

    def show(self, standing: Standing) -> None:
        self._standing = standing


def watch_on(console: EscapingConsole, *, quiet: bool = False) -> AbstractContextManager[Watch]:
    """Return a context with the watch that suits the console. quiet: a silent one."""
    if quiet:
        return nullcontext(Callback())
    return Screen(console) if console.is_terminal and console.about is None else Lines(console)


def progress_bar(on_progress: Callable[[Progress], None] | None) -> AbstractContextManager[Watch]:
    """Return the watch for calls from Python: `on_progress`, or a bar in a terminal or a notebook."""
    console = EscapingConsole(stderr=True)
    if on_progress is None and (console.is_terminal or console.is_jupyter):
        return Screen(console)
    return nullcontext(Callback(on_progress))


def picture(standing: Standing) -> RenderableType:
    """Return the whole display: a bar and the headline, a line for each worker, the last failure."""
    match standing:
        case Awaited() | Checked():
            return Text(headline(standing))
        case Progress():
            parts = [bar_and(headline(standing), standing.done + standing.failed, standing.total)]
            parts += [workers_table(standing.workers)] if standing.workers else []
            notes = [*standing.unused]
            if standing.last_failure:
                notes.append("last failure: " + standing.last_failure.partition("\n")[0])
            red = (Text(note, style="red", overflow="ellipsis", no_wrap=True) for note in notes)
            return Group(*parts, *red)
        case _:
            return bar_and(headline(standing), standing.done, standing.total)


def bar_and(text: str, completed: int, total: int) -> Table:
    """Return a text behind a bar."""
    line = Table.grid(padding=(0, 1))
    line.add_row(ProgressBar(total=max(total, 1), completed=completed, width=BAR_WIDTH), text)
    return line


def workers_table(workers: tuple[WorkerState, ...]) -> Table:
    """Return a line for each worker, as far as a terminal has room; the rest is counted."""
    grid = Table.grid(padding=(0, 2))
    for worker in workers[:MAX_WORKERS_SHOWN]:
        state = Text(worker.state, style=STYLES.get(worker.state, ""))
        rows = f"{worker.rows_in_hand} in hand", f"{worker.rows_done} done"
        grid.add_row(worker.name, state, *rows, worker.node, worker.model)
    hidden = Counter(worker.state for worker in workers[MAX_WORKERS_SHOWN:])
    if hidden:
        grid.add_row("and", ", ".join(f"{count} {state}" for state, count in sorted(hidden.items())))
    return grid


class _Exported:
    """Passes progress on, and keeps its figures for readers in any thread."""

    def __init__(self, watch: Watch, output: str) -> None:
        self._watch, self._output = watch, output
        self._figures: Mapping[str, float] = {}
        self.say = watch.say

    def show(self, standing: Standing) -> None:
        if isinstance(standing, Progress):
            self._figures = standing.figures
        self._watch.show(standing)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, as a collector of prometheus_client."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        figures = self._figures
        for metric in METRICS.values():
            labels = ["output", *([metric.label] if metric.label else [])]
            kind: type[CounterMetricFamily | GaugeMetricFamily]
            kind = CounterMetricFamily if metric.is_total else GaugeMetricFamily
            family = kind(f"framefleet_{metric.name}", metric.help, labels=labels)
            values = metric.by_label(figures) if metric.label else {"": metric.of(figures)}
            is_counted = metric.label or metric.is_total or metric.name in figures
            for value, figure in values.items() if is_counted else ():
                family.add_metric([self._output, value][: len(labels)], figure)
            yield family


@contextmanager
def serving_metrics(watch: Watch, at: str | None, *, output: str) -> Iterator[Watch]:
    """Serve the figures of what `watch` shows, while the block runs.

    at: [HOST:]PORT, on loopback without a host; None serves nothing. output: the job's, a label of all
    figures. Raises JobError if nothing can be served there.
    """
    if at is None:
        yield watch
        return
    from prometheus_client import CollectorRegistry, start_http_server  # takes a third of a second

    exported, registry = _Exported(watch, output), CollectorRegistry(auto_describe=False)
    host, _, port = at.rpartition(":")
    if not (port.isdecimal() and int(port) < 1 << 16):
        raise JobError(f"--metrics-port: {at!r} is not PORT or HOST:PORT", "e.g. 9400 or 0.0.0.0:9400")
    try:
        registry.register(cast("Collector", exported))
        server, thread = start_http_server(int(port), host.strip("[]") or "127.0.0.1", registry)
        # It would print a traceback when a client disconnects.
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
    except OSError as error:
        problem = f"--metrics-port: figures cannot be served at {at!r}: {error}"
        raise JobError(problem, "give a free port, or HOST:PORT") from None
    try:
        yield exported
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
