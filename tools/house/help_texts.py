"""Help of the command line: every command, argument and option has one, and it reads as a phrase."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import click
import typer

from framefleet.jobs.cli import command_line
from tools.house.house import Finding, House

_PLACE = "jobs/cli.py"
_QUESTION = re.compile(r"(What|Whether|How|Where|Which|Who)\b")


def poor_help(_house: House) -> Iterator[Finding]:
    """Yield help texts of `framefleet` that are missing or no phrases."""
    for name, text in help_texts(typer.main.get_command(command_line()), "framefleet"):
        if problem := help_problem(text):
            yield Finding(_PLACE, 1, f"help of `{name}`: {problem}")


def help_texts(command: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield the help of a command, of its parameters and of the commands below it; "" where it has none."""
    yield name, command.help or ""
    for parameter in command.params:
        is_argument = parameter.param_type_name == "argument"
        shown = (parameter.metavar or parameter.name) if is_argument else parameter.opts[0]
        yield f"{name} {shown}", getattr(parameter, "help", None) or ""
    for below, inner in getattr(command, "commands", {}).items():
        yield from help_texts(inner, f"{name} {below}")


def help_problem(text: str) -> str | None:
    """Return what is wrong with a help text; None: nothing."""
    shown = click.unstyle(text).strip()
    if not shown:
        return "missing"
    if not shown[0].isupper():
        return f"begins with {shown.split()[0]!r}, not with a capital letter"
    if question := _QUESTION.match(shown):
        return f"begins with {question[0]!r}: begin with a verb or a noun"
    return None
