"""Ask the driver of an output to stop, pause or resume, by files that it looks for at every beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framefleet.api.errors import JobError, command
from framefleet.api.outputs import Output
from framefleet.cluster.driver.lock import PAUSE, STOP
from framefleet.pipeline.outputs.parts.seals import request_path
from framefleet.plugins.watch.status import DriverSeen, driver_of

RESUME = "resume"


def stop(output: str, *, storage_options: Mapping[str, Any] | None = None) -> DriverSeen:
    """Ask the job that writes to an output to stop, as with Ctrl-C. It can continue later.

    Returns its driver at once. The job ends when its workers have saved their rows. storage_options: for
    fsspec. Raises JobError if no driver is running.
    """
    return ask_driver(Output.open(output, storage_options), STOP)


def pause(output: str, *, storage_options: Mapping[str, Any] | None = None) -> DriverSeen:
    """Ask the job that writes to an output to end its workers, after they have saved their rows, and to wait.

    Returns its driver at once. `resume` continues it; a job that is run again is not paused. Raises as `stop`
    does, and if the driver renders no rows, e.g. while it trains or writes prompts.
    """
    return ask_driver(Output.open(output, storage_options), PAUSE)


def resume(output: str, *, storage_options: Mapping[str, Any] | None = None) -> DriverSeen:
    """Continue a paused job. Returns its driver at once. Raises as `stop` does."""
    return ask_driver(Output.open(output, storage_options), RESUME)


def ask_driver(output: Output, what: str) -> DriverSeen:
    """Send a request to the driver of an output, or of an inner output that renders; return the driver.

    what: `STOP`, `PAUSE` or `RESUME`, which takes back `PAUSE`.
    """
    stores = (output.store, *(one.store for one in output.inner.values()))
    drivers = [(driver, store) for store in stores if (driver := driver_of(store)).is_at_work]
    if not drivers:
        fix = f"see `{command('status', output.url)}`; `ray job stop` ends a submitted job before it starts"
        raise JobError(f"no job writes to {output.url}", fix)
    # A silent driver may have been killed, before another machine started with an inner output.
    driver, store = min(drivers, key=lambda one: one[0].state != "running")
    if what == PAUSE and not driver.can_pause:
        raise JobError(
            f"the driver on {driver.host} (pid {driver.pid}) can't be paused while it renders no rows",
            f"stop it ({command('stop', output.url)}), or wait until it renders",
        )
    if what == RESUME:
        store.delete(request_path(driver.epoch, PAUSE))
    else:
        store.write(request_path(driver.epoch, what), b"")
        now = driver_of(store)
        if not now.is_at_work or now.epoch != driver.epoch:  # it ended before it could see the request
            return ask_driver(output, what)
    return driver
