"""The command line: which command is which function. Each stands in the folder of what it does.

A folder's `command` says what is typed, and imports what it does when it runs: `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from framefleet.jobs.control.command import add_command, pause_command, resume_command, stop_command
from framefleet.jobs.demo.command import ANY_ARGUMENTS, demo_command, shapes_command
from framefleet.jobs.doctor.command import doctor_command
from framefleet.jobs.export.command import export_command
from framefleet.jobs.job.command import schema_command
from framefleet.jobs.keep.compact.command import compact_command
from framefleet.jobs.keep.repair.command import repair_command
from framefleet.jobs.keep.replay.command import replay_command
from framefleet.jobs.keep.verify.command import verify_command as verify_output_command
from framefleet.jobs.look.failures.command import failures_command
from framefleet.jobs.look.gallery.command import gallery_command
from framefleet.jobs.look.report.command import report_command
from framefleet.jobs.look.score.command import score_command
from framefleet.jobs.look.sheet.command import grid_command, sheet_command
from framefleet.jobs.look.status.command import status_command
from framefleet.jobs.model.command import (
    convert_command,
    info_command,
    list_command,
    lock_command,
    verify_command,
)
from framefleet.jobs.plan.command import plan_command
from framefleet.jobs.render.command import render_command, retry_command
from framefleet.jobs.show.console import reporting
from framefleet.jobs.show.terminal import guard_streams
from framefleet.jobs.train.command import train_command
from framefleet.pipeline.guards.redaction import keep_secrets

app = typer.Typer(
    help="Render a table of prompts into clips and records that can be rendered again, bit for bit.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
model_app = typer.Typer(help="Inspect, lock, verify or convert a model.", no_args_is_help=True)
app.add_typer(model_app, name="model")

app.command("render")(render_command)
app.command("train")(train_command)
app.command("plan")(plan_command)
app.command("replay")(replay_command)
app.command("verify")(verify_output_command)
app.command("repair")(repair_command)
app.command("compact")(compact_command)
app.command("retry")(retry_command)
app.command("stop")(stop_command)
app.command("pause")(pause_command)
app.command("resume")(resume_command)
app.command("add")(add_command)
app.command("export")(export_command)
app.command("score")(score_command)
app.command("gallery")(gallery_command)
app.command("status")(status_command)
app.command("failures")(failures_command)
app.command("report")(report_command)
app.command("sheet")(sheet_command)
app.command("grid")(grid_command)
app.command("doctor")(doctor_command)
app.command("schema")(schema_command)
app.command("demo")(demo_command)
app.command("shapes", hidden=True, context_settings=ANY_ARGUMENTS)(shapes_command)

model_app.command("lock")(lock_command)
model_app.command("verify")(verify_command)
model_app.command("convert")(convert_command)
model_app.command("list")(list_command)
model_app.command("info")(info_command)


def main() -> None:
    """Run one command and end with its exit code; what is printed is fit for a terminal."""
    guard_streams()
    # No module in the current folder takes the place of one that a process of a library's imports.
    os.environ["PYTHONSAFEPATH"] = "1"
    for argument in sys.argv[1:]:  # also where it is misplaced, and quoted in a mistake
        name, _, value = argument.removeprefix("--set=").partition("=")
        keep_secrets({name: value})
    with reporting(verbose=False):
        try:
            app(prog_name="framefleet")
        finally:
            sys.stdout.flush()  # here, where a full disk or a closed pipe is reported


def _show_version(wanted: bool) -> None:
    if wanted:
        from framefleet import __version__

        print(f"framefleet {__version__}")
        raise typer.Exit


@app.callback()
def _framefleet(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Render a table of prompts into clips and records that can be rendered again, bit for bit."""


if __name__ == "__main__":
    main()
