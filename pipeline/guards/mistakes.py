"""Mistakes of people: suggest the nearest name, explain a wrong type, report several errors at once."""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from framefleet.pipeline.errors import JobError, ModelError, UserError, quoted, shown

_MODEL = "model"  # the place of the model in a job that has only one
_AGAIN = "correct these, then run the same command again"
_MOST_SHOWN, _MOST_FOLDERS = 20, 3  # names in a message
Expected = TypeVar("Expected")
Settings = TypeVar("Settings", bound=BaseModel)

_MAPPING = "a mapping (key: value)"
_EXAMPLE = re.compile(r"\{[^{}]*\}")  # of a mapping, in a description
QUOTED_TEXT = "text (in quotes, where YAML takes it for something else)"
# By pydantic's type of error: its own messages are for programmers.
_SHOULD_BE = {
    "bool_type": "true or false",
    "dict_type": _MAPPING,
    "extra_forbidden": "left out",
    "finite_number": "a finite number",
    "float_type": "a number",
    "float_parsing": "a number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "list_type": "a list ([...])",
    "literal_error": "{expected}",
    "missing": "there",
    "model_attributes_type": _MAPPING,
    "model_type": _MAPPING,
    "string_pattern_mismatch": "text of the form that `framefleet schema` shows",
    "string_too_short": "not empty",
    "too_short": "not empty",
    "string_type": QUOTED_TEXT,
}


def must_be(error: Any, description: str = "") -> str:
    """Return what a value must be, from pydantic's error. description: of its key; may have an example."""
    usual = str(error["msg"]).replace("Input should be ", "").removeprefix("Value error, ")
    text = _SHOULD_BE.get(error["type"])
    if text is _MAPPING and (example := _EXAMPLE.search(description)):
        return f"a mapping (e.g. {example[0]})"
    return usual if text is None else text.format(**error.get("ctx", {})).replace("'", "")


def settings_of(kind: type[Settings], values: Any, *, place: str, fix: str) -> Settings:
    """Return values of a program as a pydantic model. place: their name in messages. Raises ModelError."""
    try:
        return kind.model_validate(dict(values) if isinstance(values, Mapping) else values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    where = ".".join(map(str, (place, *first["loc"])))
    what = f"{first['input']!r}, and must be {must_be(first)}"
    raise ModelError(f"{where} is {'missing' if first['type'] == 'missing' else what}", fix)


def nearest(word: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the most similar known words, the best first. cutoff: 1 for the same word, 0 for any."""
    return difflib.get_close_matches(word, list(known), n=most, cutoff=cutoff)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the fix for a name that does not exist."""
    names = sorted(known) if isinstance(known, Set) else list(known)  # the same in each run
    longer = [name for name in names if len(word) > 2 and word in name]
    if near := nearest(word, names, cutoff=0.62) or nearest(word, longer, cutoff=0):
        return f"did you mean {near[0]!r}?"
    names = sorted(names) if len(names) <= _MOST_SHOWN else [*names[:_MOST_SHOWN], "..."]
    return f"use one of {', '.join(names)}"


def folder_meant(folder: str, files: Collection[str]) -> str | None:
    """Return the fix for a folder without any of these files, if the folder above or some below have one."""
    if any(os.path.isfile(f"{folder}/../{name}") for name in files):
        return f"did you mean {os.path.dirname(os.path.abspath(folder))!r}?"
    for depth in ("*", "*/*"):
        matches = (path for name in files for path in glob.iglob(f"{glob.escape(folder)}/{depth}/{name}"))
        if places := sorted({os.path.dirname(path) for path in matches}):
            return f"did you mean {' or '.join(map(repr, places[:_MOST_FOLDERS]))}?"
    return None


def either(fix: str, other: str) -> str:
    """Return one text for two alternative fixes."""
    return f"{fix} Or {other}" if fix.endswith("?") else f"{fix}; or {other}"


def no_program(place: str, program: str, file: str) -> JobError:
    """Return the error for a job key whose program this machine cannot run. file: where it was looked for."""
    if "/" in program and os.path.isfile(file):
        return JobError(f"{place}: {program} is not executable", f"run {quoted('chmod', '+x', file)}")
    problem = f"{place}: {program} is not a program on this machine"
    return JobError(problem, "correct its path, which is relative to the job file's folder")


@contextmanager
def naming_model(place: str) -> Iterator[None]:
    """Make a UserError of the block name the model's place in the job, e.g. `models.wan`, and not `model`."""
    try:
        yield
    except UserError as error:
        if place == _MODEL:
            raise
        fix = error.fix.replace(f"`{_MODEL}.", f"`{place}.").replace(f"`{_MODEL}:", f"`{place}:")
        raise type(error)(f"{place}: {error.problem}", fix) from None


class Mistakes:
    """Collects the errors of several checks, so that one error does not hide the others."""

    def __init__(self) -> None:
        self.found: list[UserError] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note a UserError of the block instead of raising it."""
        try:
            yield
        except UserError as error:
            self.found.append(error)

    def report(self) -> None:
        """Raise what was noted: a single error unchanged, several as one error of the first's class."""
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            fixes = [f" ({error.fix})" if error.fix not in ("", _AGAIN) else "" for error in self.found]
            lines = [error.problem + fix for error, fix in zip(self.found, fixes, strict=True)]
            raise type(self.found[0])("\n".join(lines), _AGAIN)


def expected(value: Any, kind: type[Expected], name: str, fix: str) -> Expected:
    """Return the value. Raises JobError if it has another type. name: what the message calls it."""
    if isinstance(value, kind):
        return value
    raise JobError(f"{name} is {shown(value)}, of type {type(value).__name__}", fix)
