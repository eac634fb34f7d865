"""`framefleet stop`, `pause` and `resume`: what is typed, and what they print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from framefleet.jobs.options import OutputToRead, StorageSets, Verbose
from framefleet.jobs.show.console import reporting, stderr, stdout
from framefleet.pipeline.text import command

if TYPE_CHECKING:
    from framefleet.jobs.look.status.status import DriverSeen


def stop_command(output: OutputToRead, sets: StorageSets = None, verbose: Verbose = False) -> None:
    """Stop the job that writes to an output, from any machine. Run the job again to continue.

    Returns at once. Within ten seconds the job begins to stop, as after Ctrl-C: its workers save their rows.
    """
    with reporting(verbose=verbose):
        from framefleet.cluster.driver.lock import STOP
        from framefleet.jobs.control.control import ask_driver
        from framefleet.jobs.job.file import output_at

        found = output_at(output, sets)
        _say_asked(ask_driver(found, STOP), "end")
        stderr.say(f"it has ended once no driver is at work: {command('status', found.url)}")


def pause_command(output: OutputToRead, sets: StorageSets = None, verbose: Verbose = False) -> None:
    """Pause the job that writes to an output, from any machine. `framefleet resume` continues it.

    Returns at once. Within ten seconds the workers begin to save their rows and end, which frees their GPUs.
    The job itself keeps waiting.
    """
    with reporting(verbose=verbose):
        from framefleet.cluster.driver.lock import PAUSE
        from framefleet.jobs.control.control import ask_driver
        from framefleet.jobs.job.file import output_at

        found = output_at(output, sets)
        _say_asked(ask_driver(found, PAUSE), "pause")
        stderr.say(f"to continue: {command('resume', found.url)}")


def resume_command(output: OutputToRead, sets: StorageSets = None, verbose: Verbose = False) -> None:
    """Continue a paused job, from any machine. Its workers start again and continue half-done rows."""
    with reporting(verbose=verbose):
        from framefleet.jobs.control.control import resume_driver
        from framefleet.jobs.job.file import output_at

        _say_asked(resume_driver(output_at(output, sets)), "continue")


def _say_asked(driver: DriverSeen, what: str) -> None:
    stdout.say(f"asked the driver on {driver.host} (pid {driver.pid}) to {what}")
