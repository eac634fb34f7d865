"""What `framefleet model convert` does, and what it prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from framefleet.jobs.commands import quiet_libraries
from framefleet.jobs.console import stderr, stdout
from framefleet.jobs.job_file import config_values


def convert_command(
    checkpoint: Path, folder: Path, *, variant: str | None, dtype: str | None, sets: Sequence[str]
) -> None:
    """Write the pipeline folder and print what it became."""
    given = config_values(sets)
    quiet_libraries()
    from framefleet.pipeline.conversion.convert import convert

    with stderr.status(f"converting {checkpoint}"):
        done = convert(checkpoint, folder, variant=variant, dtype=dtype, given=given)
    stdout.print(f"{folder}: {done.variant}, {done.pipeline.__name__}", markup=False, soft_wrap=True)
    stdout.print(f"next: framefleet model lock {folder}", markup=False, soft_wrap=True)
