"""What `framefleet model convert` does, and what it prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from framefleet.jobs.job.file import config_values
from framefleet.jobs.show.console import stderr, stdout
from framefleet.jobs.show.libraries import quiet_libraries
from framefleet.jobs.show.progress import BAR_WIDTH
from framefleet.pipeline.text import command


def show_convert(
    checkpoint: Path, folder: Path, *, variant: str | None, dtype: str | None, sets: Sequence[str]
) -> None:
    """Write the pipeline folder and print what it became."""
    given = config_values(sets)
    quiet_libraries()
    from framefleet.pipeline.models.conversion.convert import convert

    with _bytes_written() as progress:
        done = convert(checkpoint, folder, variant=variant, dtype=dtype, given=given, progress=progress)
    stdout.say(f"{folder}: {done.variant}, {done.pipeline.__name__}")
    stdout.say(f"next: {command('model', 'lock', folder)}")


@contextmanager
def _bytes_written() -> Iterator[Callable[[int, int], None]]:
    """Show bytes, rate and time left on a terminal, and nothing in a log. Yield what it is told by."""
    columns = (BarColumn(BAR_WIDTH), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)
    with bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
