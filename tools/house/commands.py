"""Commands that texts tell people to type: of framefleet with their options, of make, of Python's `-m`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from framefleet.jobs.cli import command_line
from tools.house.house import Finding, House
from tools.house.prose import said_wrongly

# In backticks, or an indented line; it may go on after a backslash.
_TYPED = r"(?:`|^ {4,}(?:[A-Z_]+=\S+ )*)(?:\.venv/bin/)?"
_FRAMEFLEET = re.compile(_TYPED + r"framefleet (?P<words>(?:[^`\n#\\]|\\\n)+)", re.MULTILINE)
_MAKE = re.compile(_TYPED + r"make (?P<target>[.a-z_]+)", re.MULTILINE)
_MODULE = re.compile(r"python -m (?P<module>(?:framefleet|tests)[\w.]*)")
_VARIABLE = re.compile(r"(?<!\w)FRAMEFLEET_[A-Z_]+")
_READ = re.compile(r"[\"'](FRAMEFLEET_[A-Z_]+)[\"']")
_TARGET = re.compile(r"^([.a-z_]+):", re.MULTILINE)


def unknown_commands(house: House) -> Iterator[Finding]:
    """Yield what `framefleet --help` does not have."""
    root = typer.main.get_command(command_line())

    def problem(path: str, match: re.Match[str]) -> str | None:
        return _problem(root, match["words"].split()) if _is_typed(path, match) else None

    return said_wrongly(house, _FRAMEFLEET, problem, in_messages=True)


def unknown_targets(house: House) -> Iterator[Finding]:
    """Yield what the Makefile does not have."""
    known = targets(house.texts.get("Makefile", ""))

    def problem(path: str, match: re.Match[str]) -> str | None:
        is_lost = _is_typed(path, match) and match["target"] not in known
        return f"the Makefile has no {match['target']}" if is_lost else None

    return said_wrongly(house, _MAKE, problem)


def unknown_modules(house: House) -> Iterator[Finding]:
    """Yield modules that `python -m` would not find."""

    def problem(_path: str, match: re.Match[str]) -> str | None:
        stem = match["module"].replace(".", "/")
        is_there = house.places & {f"{stem}.py", f"{stem}/__main__.py"}
        return None if is_there else f"python -m {match['module']}: there is no such module to run"

    return said_wrongly(house, _MODULE, problem)


def unread_variables(house: House) -> Iterator[Finding]:
    """Yield environment variables of ours that no code reads."""
    code = (text for path, text in house.texts.items() if path.endswith(".py"))
    read = {name for text in code for name in _READ.findall(text)}

    def problem(_path: str, match: re.Match[str]) -> str | None:
        return None if match[0] in read else f"no code reads {match[0]}"

    return said_wrongly(house, _VARIABLE, problem)


def targets(makefile: str) -> set[str]:
    """Return what can be made."""
    return set(_TARGET.findall(makefile))


def _is_typed(path: str, match: re.Match[str]) -> bool:
    """Say whether it is a command and no sentence: indented lines are code in documents alone."""
    return match[0].startswith("`") or path.endswith(".md")


def _problem(command: Any, words: list[str]) -> str | None:
    name = "framefleet"
    while words and hasattr(command, "commands") and re.fullmatch(r"[a-z|]+", words[0]):
        names = (word := words.pop(0)).split("|")  # as in lock|verify
        if missing := [one for one in names if one not in command.commands]:
            return f"{name} has no command {missing[0]}"
        name, command = f"{name} {word}", command.commands[names[0]]
    known = {"--help", "-h"} | {option for parameter in command.params for option in parameter.opts}
    unknown = [word for word in words if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known]
    return f"{name} has no option {unknown[0]}" if unknown else None
