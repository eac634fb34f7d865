"""The command line: which function runs each command.

A command is in the module `command` of its folder, or in a file of its own name. It imports what it needs
only when it runs, so that `--help` answers at once. Plugins add commands (jobs/doors.py).
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
from functools import cache, wraps
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from framefleet import __version__
from framefleet.jobs.cut_option import cut_option
from framefleet.jobs.doors import Command, commands
from framefleet.jobs.job.command import schema_command
from framefleet.jobs.options import Verbose
from framefleet.jobs.render.command import render_command, retry_command
from framefleet.jobs.show.console import guard_streams, reporting
from framefleet.pipeline.errors import setting
from framefleet.pipeline.guards.mistakes import must_be
from framefleet.pipeline.guards.redaction import keep_secrets
from framefleet.pipeline.plugin import broken_plugins

log = logging.getLogger(__name__)
_HELP = "Render a table of prompts into video clips, and render any clip again, bit for bit."
_MODEL_HELP = "List, describe, lock, verify or convert models."
_SETUP, _MODEL = "Set up", "model"  # the second has the commands of `framefleet model`
# In the order in which people use them. In each panel, commands of plugins come last.
_PANELS: dict[str, tuple[Command, ...]] = {
    "Render": (render_command,),
    "Watch and control": (),
    "Look at clips": (),
    "Check and repair": (retry_command,),
    "Use clips": (),
    _SETUP: (schema_command,),
    _MODEL: (),
}


def _name_of(command: Command) -> str:
    return command.__name__.removesuffix("_command")


def _help_of(command: Command) -> str:
    """Return the docstring with each paragraph on one line: terminals wrap it."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _reported(command: Command) -> Command:
    """Return a command with --verbose, and `reporting` around it; one with its own --verbose is unchanged."""
    own = inspect.signature(command, eval_str=True)
    if "verbose" in own.parameters:
        return command

    @wraps(command)
    def reported(*, verbose: bool, **values: Any) -> None:
        is_resumable, log_format = hasattr(command, "is_resumable"), values.get("log_format", "text")
        with reporting(verbose=verbose, resumable=is_resumable, log_format=log_format):
            command(**values)

    verbose = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Verbose)
    reported.__dict__["__signature__"] = own.replace(parameters=[*own.parameters.values(), verbose])
    return reported


class _Plain:
    """Help without Python types: it shows what to type as an option's value, and nothing for a flag."""

    def get_params(self, ctx: Any) -> list[Any]:
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # of Typer's class, the other base
        for option in parameters:
            is_typed = option.param_type_name == "option" and not option.is_flag
            shown = option.metavar or option.opts[0].strip("-").replace("-", "_").upper() if is_typed else ""
            option.display_type_rich = lambda ctx, shown=shown: shown
        return parameters


class _Command(_Plain, TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = {name for option in self.params for name in option.opts}
        if not ctx.resilient_parsing and (meant := cut_option(args, options)):
            ctx.fail(f"A value ends at its first space: write {meant}")
        try:
            return super().parse_args(ctx, args)
        except Exception as failure:
            error: Any = failure  # NoSuchOption, for which Typer exports no name
            is_unknown = hasattr(error, "option_name") and not getattr(error, "possibilities", True)
            if is_unknown and "--set" in options and error.option_name in ("--output", "--table", "--model"):
                error.message += f"; write {setting(error.option_name.removeprefix('--'), 'PLACE')}"
            elif is_unknown and "--sweep" in options:
                error.message += "; for an argument of the model, write --set defaults.NAME=VALUE"
                error.message += " or --sweep NAME=VALUES"
            cause: Any = error.__cause__
            if hasattr(cause, "errors") and (mistake := cause.errors()[0])["type"] != "value_error":
                error.message = f"{mistake['input']!r} must be {must_be(mistake)} ({error.param.help})"
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]


class _Group(_Plain, TyperGroup):
    """A command that has others below it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except Exception as failure:
            error: Any = failure  # as above
            if "Did you mean" not in error.message and self is not ctx.find_root().command:
                error.message += f" Use one of {', '.join(self.commands)}."
            raise


@cache
def command_line() -> typer.Typer:
    """Return all commands, panel by panel: those of the core, then those of plugins that can be used."""
    app = typer.Typer(
        help=_HELP,
        cls=_Group,
        callback=_framefleet,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    panels = {panel: [*functions] for panel, functions in _PANELS.items()}
    names = {
        (panel == _MODEL, _name_of(function)) for panel, functions in panels.items() for function in functions
    }

    def check(panel: str, function: Command) -> None:
        if (title := (panel == _MODEL, _name_of(function))) in names:
            raise ValueError(f"there is a command named {title[1]} already")
        if not function.__module__.startswith("framefleet."):
            alone = typer.Typer()
            alone.command(help=_help_of(function))(function)
            typer.main.get_command(alone)  # raises for parameters that Typer does not support
        names.add(title)

    for panel, functions in commands(check).items():
        panels.setdefault(panel, []).extend(functions)
    model_app = typer.Typer(help=_MODEL_HELP, cls=_Group, no_args_is_help=True)
    for function in panels.pop(_MODEL):
        model_app.command(_name_of(function), cls=_Command, help=_help_of(function))(_reported(function))
    for panel, functions in panels.items():
        for function in functions:
            name, text = _name_of(function), _help_of(function)
            app.command(name, cls=_Command, rich_help_panel=panel, help=text)(_reported(function))
    app.add_typer(model_app, name=_MODEL, rich_help_panel=_SETUP)
    return app


def main() -> None:
    """Run one command and end with its exit code; what it prints is safe for a terminal."""
    guard_streams()
    # Processes that libraries start must not import modules from the current folder.
    os.environ["PYTHONSAFEPATH"] = "1"
    for argument in sys.argv[1:]:  # a misplaced one too, as error messages may quote it
        name, _, value = argument.removeprefix("--set=").partition("=")
        keep_secrets({name: value})
    try:
        with reporting(verbose=False):
            try:
                command_line()(prog_name="framefleet")
            finally:
                sys.stdout.flush()  # here, where a full disk or a closed pipe is reported
    except SystemExit as end:
        for error in broken_plugins():
            if error is not end.__context__:  # which was reported already
                log.warning("%s; %s", error.problem, error.fix)
        started = sys.modules.get("framefleet.cluster.fleet.start")
        if started and started.is_ray_left():
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"framefleet {__version__}")
        raise typer.Exit


def _framefleet(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Do nothing; the commands do the work."""


if __name__ == "__main__":
    main()
