"""What a terminal, or a log, shows of a job under way: counts, rate, time left, workers. To stderr."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from framefleet.cluster.progress import Progress, WorkerState
from framefleet.jobs.train.progress import TrainProgress

# A log of a week-long job stays readable; a terminal is redrawn as often as the eye wants.
LINE_EVERY_S = 5.0
REDRAWS_PER_S = 4
# More do not fit a terminal; the rest is counted.
MAX_WORKERS_SHOWN = 12
BAR_WIDTH = 20  # leaves the headline its place beside it on 80 columns
STYLES = {"rendering": "green", "idle": "dim", "starting": "yellow", "lost": "red"}


def headline(progress: Progress) -> str:
    """Return all counts in one line."""
    parts = [f"{progress.done:,}/{progress.total:,} rows"]
    if progress.rows_per_s is not None:
        parts.append(f"{progress.rows_per_s:.2f} rows/s")
    if progress.eta_s is not None:
        parts.append(f"{duration(progress.eta_s)} left")
    if progress.mean_batch is not None:
        parts.append(f"mean batch {progress.mean_batch:.1f}")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    if not progress.workers:
        parts.append(f"workers are starting ({duration(progress.elapsed_s)})")
    return ", ".join(parts)


def train_headline(progress: TrainProgress) -> str:
    """Return how far a training is in one line."""
    parts = [f"{progress.done:,}/{progress.total:,} steps", f"loss {progress.loss:.4g}"]
    if progress.steps_per_s is not None:
        rate = progress.steps_per_s
        parts.append(f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / rate:.1f} s/step")
    if progress.eta_s is not None:
        parts.append(f"{duration(progress.eta_s)} left")
    parts.append(f"learning rate {progress.learning_rate:.2g}")
    if progress.kept:
        parts.append(f"checkpoint {progress.kept:,}")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return 75 seconds as 1:15, and 3,700 as 1:01:40."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Lines:
    """Plain lines, for logs and pipes. The first and the last progress are always shown."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._last_at = -math.inf
        self._hidden = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show_hidden()

    def say(self, text: str) -> None:
        self._show_hidden()
        self._console.print(text, markup=False, soft_wrap=True)

    def _show_hidden(self) -> None:
        """Show how far it was: what is said next is of what comes after."""
        if self._hidden:
            self._console.print(self._hidden, markup=False, soft_wrap=True)
            self._hidden = ""

    def checked(self, num_rows: int) -> None:
        self._now_and_then(f"{num_rows:,} rows checked")

    def progress(self, progress: Progress) -> None:
        busy = sum(worker.state == "rendering" for worker in progress.workers)
        working = f", {busy} of {len(progress.workers)} workers rendering" if progress.workers else ""
        self._now_and_then(headline(progress) + working)

    def prepared(self, num_rows: int, total: int) -> None:
        self._now_and_then(f"{num_rows:,} of {total:,} rows prepared")

    def trained(self, progress: TrainProgress) -> None:
        self._now_and_then(train_headline(progress))

    def _now_and_then(self, text: str) -> None:
        now = self._clock()
        if now - self._last_at >= LINE_EVERY_S:
            self._last_at, self._hidden = now, ""
            self.say(text)
        else:
            self._hidden = text


class Screen:
    """A display that is redrawn in place, for terminals."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=REDRAWS_PER_S, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        self._live.update(Text(""))
        self._live.console.print(text, markup=False, soft_wrap=True)

    def checked(self, num_rows: int) -> None:
        self._live.update(Text(f"{num_rows:,} rows checked"))

    def progress(self, progress: Progress) -> None:
        self._live.update(picture(progress))

    def prepared(self, num_rows: int, total: int) -> None:
        self._live.update(Text(f"{num_rows:,} of {total:,} rows prepared"))

    def trained(self, progress: TrainProgress) -> None:
        self._live.update(_bar_and(train_headline(progress), progress.done, progress.total))


def watch_on(console: Console) -> Lines | Screen:
    """Return what suits the console, as a context."""
    return Screen(console) if console.is_terminal else Lines(console)


def picture(progress: Progress) -> Group:
    """Return the whole display: a bar and the headline, a line for each worker, the last failure."""
    top = _bar_and(headline(progress), progress.done + progress.failed, progress.total)
    parts: list[Text | Table] = [top]
    if progress.workers:
        parts.append(_workers(progress.workers))
    if progress.last_failure:
        first_line = progress.last_failure.partition("\n")[0]
        parts.append(Text(f"last failure: {first_line}", style="red", overflow="ellipsis", no_wrap=True))
    return Group(*parts)


def _bar_and(text: str, completed: int, total: int) -> Table:
    line = Table.grid(padding=(0, 1))
    line.add_row(ProgressBar(total=max(total, 1), completed=completed, width=BAR_WIDTH), text)
    return line


def _workers(workers: tuple[WorkerState, ...]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for worker in workers[:MAX_WORKERS_SHOWN]:
        state = Text(worker.state, style=STYLES.get(worker.state, ""))
        grid.add_row(
            worker.name, state, f"{worker.rows_in_hand} in hand", f"{worker.rows_done} done", worker.node
        )
    hidden = Counter(worker.state for worker in workers[MAX_WORKERS_SHOWN:])
    if hidden:
        grid.add_row("and", ", ".join(f"{count} {state}" for state, count in sorted(hidden.items())))
    return grid
