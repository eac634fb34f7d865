"""From pydantic's errors about a job to sentences: where it stands, what is wrong, what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from framefleet.jobs.job import Job, LoraSection

Key = tuple[str | int, ...]

# By pydantic's type of error, whose own words are for programmers.
SHOULD_BE = {
    "bool_type": "true or false",
    "dict_type": "a mapping (key: value)",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "model_type": "a mapping (key: value)",
    "string_too_short": "not empty",
    "string_type": "text (in quotes, where YAML takes it for something else)",
}


def mistakes_in(
    error: ValidationError, values: Mapping[str, Any], places: Mapping[Key, str]
) -> Iterator[tuple[str, str]]:
    """Yield (problem, fix) once for each key; a value that may be of two kinds has an error for each.

    places: what to call the place of each key in the file, or on the command line.
    """
    by_key: dict[Key, list[Any]] = {}
    for found in error.errors(include_url=False):
        is_whole = found["type"] in ("missing", "extra_forbidden")
        key = found["loc"] if is_whole else _reached(found["loc"], values)
        by_key.setdefault(key, []).append(found)
    for key, errors in by_key.items():
        where = f"{places[key]}: " if key in places else ""
        problem, fix = _sentence(key, errors)
        yield where + problem, fix


def _reached(location: Key, values: Any) -> Key:
    """Cut off what pydantic adds to a key: the member of a union that it tried."""
    key: Key = ()
    for part in location:
        if not isinstance(values, dict) or part not in values:
            break
        key, values = (*key, part), values[part]
    return key


def _sentence(key: Key, errors: list[Any]) -> tuple[str, str]:
    name, kind = ".".join(map(str, key)), errors[0]["type"]
    if kind == "missing":
        return f"the job has no `{name}`", f"write `{name}: ...`" + (f", or give --{name}" * (len(key) == 1))
    if kind == "extra_forbidden":
        return f"unknown key `{name}`", _nearest(key)
    if errors[0]["loc"][-1] == "[key]":
        return f"`{name}` is not text", "put it in quotes"
    shown = _shown(key, errors[0]["input"])
    if key[0] == "defaults" and len(key) > 1:
        return f"`{name}` is {shown}", "it must be text, a number, true or false"
    # The member of a union that a value comes closest to is the one that was looked into.
    depth = max(len(error["loc"]) for error in errors)
    wanted = dict.fromkeys(_wanted(error) for error in errors if len(error["loc"]) == depth)
    return f"`{name}` is {shown}", f"it must be {' or '.join(wanted)}"


def _wanted(error: Mapping[str, Any]) -> str:
    if error["type"] == "literal_error":
        return str(error["ctx"]["expected"]).replace("'", "")
    return SHOULD_BE.get(error["type"], str(error["msg"]).replace("Input should be ", ""))


def _shown(key: Key, value: Any) -> str:
    if key[0] == "storage_options":
        return "not usable"  # it may be a secret
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _nearest(key: Key) -> str:
    """Return the hint for a key that does not exist: a near one beside it, or the same word elsewhere."""
    known = [*_known_keys(Job), *_known_below(key)]
    siblings = {path[-1]: path for path in known if path[:-1] == key[:-1]}
    elsewhere = {path[-1]: path for path in known}
    for words in (siblings, elsewhere):
        if nearest := difflib.get_close_matches(str(key[-1]), words, n=1, cutoff=0.7):
            return f"did you mean `{'.'.join(words[nearest[0]])}`?"
    return f"known here: {', '.join(siblings or elsewhere)}"


def _known_below(key: Key) -> Iterator[tuple[str, ...]]:
    """Yield the keys of a section that stands under a name which the job chose, as `loras.style`."""
    if key[0] == "loras" and len(key) > 2:
        yield from (("loras", str(key[1]), *path) for path in _known_keys(LoraSection))


def _known_keys(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (name,)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from ((name, *path) for path in _known_keys(field.annotation))
