"""What a terminal, or a log, shows of a job under way: counts, rate, time left, workers."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from framefleet.cluster.driver.progress import Progress, WorkerState, num_rendering
from framefleet.jobs.show.console import EscapingConsole
from framefleet.jobs.show.watch import Awaited, Callback, Checked, Standing, Watch, headline

# A log of a week-long job stays readable; a terminal is redrawn as often as the eye wants.
LINE_EVERY_S = 5.0
REDRAWS_PER_S = 4
# More do not fit a terminal; the rest is counted.
MAX_WORKERS_SHOWN = 12
BAR_WIDTH = 20  # leaves room for the headline on 80 columns
STYLES = {"rendering": "green", "idle": "dim", "drained": "dim", "starting": "yellow", "lost": "red"}


class Lines:
    """Plain lines, for logs and pipes. The first and the last progress are always shown."""

    def __init__(self, console: EscapingConsole, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._last_at = -math.inf
        self._hidden = self._awaited = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._show_hidden()

    def say(self, text: str) -> None:
        self._show_hidden()
        self._console.say(text)

    def show(self, standing: Standing) -> None:
        text, now = headline(standing), self._clock()
        if isinstance(standing, Progress) and standing.workers:  # on a terminal these have lines of their own
            text += f", {num_rendering(standing.workers)} workers rendering"
        is_due = now - self._last_at >= LINE_EVERY_S
        if isinstance(standing, Awaited):  # once, and then every few seconds for how long already
            if standing.what != self._awaited:
                self._awaited = text = standing.what
            elif not is_due:
                return
            self._last_at = now
            self.say(text)
        elif is_due:
            self._last_at, self._hidden = now, ""
            self.say(text)
        else:
            self._hidden = text

    def _show_hidden(self) -> None:
        """Show how far it was: what is said next is of what comes after."""
        if self._hidden:
            self._console.say(self._hidden)
            self._hidden = ""


class Screen:
    """A display that is redrawn in place, for terminals."""

    def __init__(self, console: EscapingConsole) -> None:
        self._console = console
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
        self._console.say(text)

    def show(self, standing: Standing) -> None:
        self._standing = standing


def watch_on(console: EscapingConsole, *, quiet: bool = False) -> AbstractContextManager[Watch]:
    """Return what suits the console, as a context. quiet: says nothing."""
    if quiet:
        return nullcontext(Callback())
    return Screen(console) if console.is_terminal and console.about is None else Lines(console)


def progress_bar(on_progress: Callable[[Progress], None] | None) -> AbstractContextManager[Watch]:
    """Return what Python's calls report to: a function, or else a bar in a terminal or a notebook."""
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
    """Return a line for each, as far as a terminal has room; the rest is counted."""
    grid = Table.grid(padding=(0, 2))
    for worker in workers[:MAX_WORKERS_SHOWN]:
        state = Text(worker.state, style=STYLES.get(worker.state, ""))
        rows = f"{worker.rows_in_hand} in hand", f"{worker.rows_done} done"
        grid.add_row(worker.name, state, *rows, worker.node, worker.model)
    hidden = Counter(worker.state for worker in workers[MAX_WORKERS_SHOWN:])
    if hidden:
        grid.add_row("and", ", ".join(f"{count} {state}" for state, count in sorted(hidden.items())))
    return grid
