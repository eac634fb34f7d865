"""Ask the driver of an output to end, to pause or to go on: through the output, where it looks every beat."""

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
    """Ask the job that writes to an output to end as on Ctrl-C: what is done stays; it can continue later.

    Return its driver, at once; it ends as soon as its workers have handed back their rows. storage_options:
    what fsspec takes. Raises JobError where no driver is at work.
    """
    return ask_driver(Output.open(output, storage_options), STOP)


def pause(output: str, *, storage_options: Mapping[str, Any] | None = None) -> DriverSeen:
    """Ask the job that writes to an output to end its workers, with all rows handed back, and to wait.

    Return its driver, at once. `resume` continues it; a job that is run again is not paused. Raises as
    `stop` does, and where the driver renders no rows, e.g. while it trains or writes prompts.
    """
    return ask_driver(Output.open(output, storage_options), PAUSE)


def resume(output: str, *, storage_options: Mapping[str, Any] | None = None) -> DriverSeen:
    """Continue a job that was paused; return its driver, at once. Raises as `stop` does."""
    return ask_driver(Output.open(output, storage_options), RESUME)


def ask_driver(output: Output, what: str) -> DriverSeen:
    """Ask the driver of an output, or of an inner one that is rendered; return who was asked.

    what: `STOP`, `PAUSE` or `RESUME`, which takes the second back.
    """
    stores = (output.store, *(one.store for one in output.inner.values()))
    drivers = [(driver, store) for store in stores if (driver := driver_of(store)).is_at_work]
    if not drivers:
        fix = f"see `{command('status', output.url)}`; `ray job stop` ends a submitted job that has not begun"
        raise JobError(f"no job writes to {output.url}", fix)
    # One that is silent may have been killed elsewhere, before another machine began with an inner output.
    driver, store = min(drivers, key=lambda one: one[0].state != "running")
    if what == PAUSE and not driver.can_pause:
        raise JobError(
            f"the driver on {driver.host} (pid {driver.pid}) can't be paused: it renders no rows now",
            f"stop it ({command('stop', output.url)}), or wait until it does",
        )
    if what == RESUME:
        store.delete(request_path(driver.epoch, PAUSE))
    else:
        store.write(request_path(driver.epoch, what), b"")
        now = driver_of(store)
        if not now.is_at_work or now.epoch != driver.epoch:  # it ended before it could see that
            return ask_driver(output, what)
    return driver
