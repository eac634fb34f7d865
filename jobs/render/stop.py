"""Ask the driver of an output to end, from anywhere: through the output, where it looks every few seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framefleet.jobs.look.status.status import DriverSeen, driver_of
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.output import Output
from framefleet.pipeline.outputs.parts.seals import stop_path


def stop(output: str, *, storage_options: Mapping[str, Any] | None = None) -> DriverSeen:
    """Ask the job that writes to an output to end as on Ctrl-C: what is done stays, and it can go on later.

    Return its driver, at once; it ends as soon as its workers have handed back their rows. storage_options:
    what fsspec takes. Raises JobError where no driver is at work.
    """
    return stop_driver(Output.open(output, storage_options))


def stop_driver(output: Output) -> DriverSeen:
    """Do what `stop` does, for the drafts of an output if these are being rendered; return who was asked."""
    for one in filter(None, (output, output.drafts)):
        driver = driver_of(one.store)
        if driver.is_at_work:
            one.store.write(stop_path(driver.epoch), b"")
            return driver
    raise JobError(f"no job writes to {output.url}", "there is nothing to stop: see framefleet status")
