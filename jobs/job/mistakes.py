"""From pydantic's errors about a job to sentences: the place, the mistake and the fix."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, get_args

from pydantic import BaseModel, RootModel, ValidationError
from pydantic.fields import FieldInfo

from framefleet.jobs.job.schema import LoraSection, ModelSection, SecondModelSection
from framefleet.jobs.job.section import Key
from framefleet.jobs.job.yaml_text import NO_SPACE, yaml_of
from framefleet.pipeline.guards.mistakes import QUOTED_TEXT, must_be, nearest
from framefleet.pipeline.guards.redaction import is_secret_name, public_value
from framefleet.pipeline.rows.sweeps.settings import Spread

# Sections whose keys are names that the job chose; each value is a path or a mapping.
NAMED: dict[Any, type[BaseModel]] = {
    "models": ModelSection,
    "loras": LoraSection,
    "second_models": SecondModelSection,
}
_CHOSEN = (*NAMED, "sweep")  # sections in which a job chooses names
# What other programs call these keys.
_OTHER_NAMES = {
    **dict.fromkeys(("store", "storage", "s3"), "storage_options"),
    **dict.fromkeys(("codec", "video_codec", "vcodec"), "encoder"),
    **dict.fromkeys(("batch_size", "max_batch_size", "max_batch"), "max_rows"),
    **dict.fromkeys(("num_workers", "n_workers"), "workers"),
    **dict.fromkeys(("gpus", "num_gpus"), "gpus_per_worker"),
    **dict.fromkeys(("out", "output_dir", "output_path"), "output"),
    **dict.fromkeys(("dataset", "input", "csv"), "table"),
    "cpus": "cpus_per_worker",
    "quality": "crf",
    "extension": "format",
    "model_name": "model",
    "torch_dtype": "dtype",
}


def mistakes_in(
    error: ValidationError,
    values: Mapping[str, Any],
    places: Mapping[Key, str],
    kind: type[BaseModel],
    *,
    has_options: bool = False,
) -> Iterator[tuple[str, str]]:
    """Yield one (problem, fix) for each key: pydantic has an error for each type that a value may have.

    places: where each key stands, in a file or on the command line. kind: the class of the job.
    has_options: whether the values come from a command line, not from Python.
    """
    by_key: dict[Key, list[Any]] = {}
    for mistake in _of_members_meant(error.errors(include_url=False), values):
        key = _reached(mistake["loc"], values)
        if mistake["type"] in ("missing", "extra_forbidden"):
            key = (*_reached(mistake["loc"][:-1], values), mistake["loc"][-1])
        by_key.setdefault(key, []).append(mistake)
    # An error inside a value makes those about the value as a whole irrelevant.
    above = {key[:depth] for key in by_key for depth in range(len(key))}
    by_key = {key: errors for key, errors in by_key.items() if key not in above}
    # An unknown key may be why another one is missing.
    for key, errors in sorted(by_key.items(), key=lambda item: item[1][0]["type"] != "extra_forbidden"):
        ways = (key[:depth] for depth in range(len(key), 0, -1))
        where = next((f"{places[way]}: " for way in ways if way in places), "")
        problem, fix = _sentence(key, errors, kind, has_options)
        yield where + problem, fix


def _of_members_meant(mistakes: Sequence[Any], values: Any) -> list[Any]:
    """Return the mistakes without those about members of a union whose keys fit worse than another's."""
    fits: dict[Key, dict[Any, int]] = {}
    places = []
    for mistake in mistakes:
        location = mistake["loc"]
        key = _reached(location[:-1], values)
        depth = next(
            (at for at, part in enumerate(location[:-1]) if part not in key[at : at + 1]), len(location)
        )
        place = (location[:depth], location[depth] if depth < len(location) else None)
        misfit = {"extra_forbidden": 2, "missing": 1}.get(mistake["type"], 0)
        members = fits.setdefault(place[0], {})
        members[place[1]] = max(members.get(place[1], 0), misfit)
        places.append(place)
    return [
        mistake
        for mistake, (union, member) in zip(mistakes, places, strict=True)
        if member is None or fits[union][member] == min(fits[union].values())
    ]


def _reached(location: Key, values: Any) -> Key:
    """Return a key without what pydantic adds: the union member that it tried, or that the value names."""
    key: Key = ()
    for part in location:
        is_entry = isinstance(values, list) and isinstance(part, int) and isinstance(values[part], dict)
        if is_entry or (isinstance(values, dict) and part in values):
            key, values = (*key, part), values[part]
        elif isinstance(part, int):  # of a list of plain values, or of lists
            break
    return key


def _sentence(key: Key, errors: list[Any], job: type[BaseModel], has_options: bool) -> tuple[str, str]:
    name, kind = ".".join(map(str, key)), errors[0]["type"]
    if kind == "no_rows":
        rest = "give --table or --prompt" if has_options else "pass `table=`"
        return "the job has no `table`, and no `sweep`", f"write `table: ...`, or {rest}"
    if kind == "both_models":
        return "the job has more than one of `model`, `models` and `engine`", "keep one of them"
    if kind == "no_model":
        return "the job has no `model`", "write `model: ...`" + ", or give --model" * has_options
    if kind == "missing":
        return f"the job has no `{name}`", f"write `{_nested(key)}`" + (
            f", or give --{name}" * (has_options and len(key) == 1)
        )
    if kind == "extra_forbidden":
        return f"unknown key `{name}`", _meant(key, errors[0], job)
    if kind.startswith("union_tag"):
        context = errors[0]["ctx"]  # of a mapping whose key for its kind is missing or unknown
        by = context["discriminator"].strip("'")
        if "tag" not in context:
            return f"`{name}` has no `{by}`", f"write `{_nested((*key, by))}`"
        tags = context["expected_tags"].replace("'", "")
        return f"`{name}` has the {by} {context['tag']!r}", f"it must be one of {tags}"
    if errors[0]["loc"][-1] == "[key]":
        return f"`{name}` is not text", "put it in quotes"
    value, shown = errors[0]["input"], "not usable"
    if _is_plain(key, value, job):
        shown = str(value).lower() if isinstance(value, bool) else repr(public_value(value))
    if key[0] == "defaults" and len(key) > 1:
        return f"`{name}` is {shown}", "it must be text, a number, true or false, or a list"
    # The member of a union that a value comes closest to has the deepest errors.
    depth = max(len(error["loc"]) for error in errors)
    wanted: dict[str, None] = {}
    fields = [*_fields_of(key, job)]
    description = (fields[-1].description or "") if len(fields) == len(key) else ""
    for error in (error for error in errors if len(error["loc"]) == depth):
        text = must_be(error, description)
        wanted[text + " of seconds" * (name.endswith("_s") and text.endswith("number"))] = None
    fix = f"it must be {' or '.join(wanted)}"
    if isinstance(value, Mapping) and QUOTED_TEXT in wanted:
        fix += "; a text with a colon and a space in it needs quotes"
    if isinstance(value, str) and "mapping" in fix and NO_SPACE.match(value):
        fix += "; put a space after the colon"
    return f"`{name}` is {shown}", fix


def _nested(key: Key) -> str:
    """Return a key as a job file has it, e.g. `model: {path: ...}`; in a list, only what is in the entry."""
    first, *inner = key[max((at + 1 for at, part in enumerate(key) if isinstance(part, int)), default=0) :]
    return f"{first}: {{{_nested(tuple(inner))}}}" if inner else f"{first}: ..."


def _is_plain(key: Key, value: Any, job: type[BaseModel]) -> bool:
    """Return whether a value may be shown, as it is not secret."""
    is_empty = isinstance(value, str | bool | list | dict | None) and not value
    return is_empty or not (_is_hidden(key, job) or any(is_secret_name(str(part)) for part in key))


def _is_hidden(key: Key, model: type[BaseModel]) -> bool:
    """Return whether a model hides the value of a key, or a part of it, with `repr=False`."""
    fields = [*_fields_of(key, model)]
    inner = next(_models_in(fields[-1].annotation), None) if len(fields) == len(key) else None
    return not all(field.repr for field in (*fields, *(inner.model_fields.values() if inner else ())))


def _fields_of(key: Key, model: type[BaseModel] | None) -> Iterator[FieldInfo]:
    """Yield the field of each part of a key, as far as models have one."""
    for part in key:
        if model is None or (field := model.model_fields.get(str(part))) is None:
            return
        yield field
        model = next(_models_in(field.annotation), None)


def _meant(key: Key, error: Any, job: type[BaseModel]) -> str:
    """Return the hint for a key that does not exist.

    It names a similar key next to it, the same word elsewhere, an argument of rows, or a similar word.
    """
    from framefleet.pipeline.rows.tables.column_checks import common_argument  # imports pyarrow

    location = error["loc"]  # pydantic's, which names the member of a union
    places = dict(_known_keys(job))
    below: type[BaseModel] | None = None
    above = location[:-1]  # of a section that stands under a name which the job chose
    if location[0] == "sweep":
        below = Spread
    elif location[0] in NAMED and len(location) > 2:
        below, above = NAMED[location[0]], location[:2]
    if below:
        written = tuple(map(str, above))
        places |= {(*above, *place): (*written, *path) for place, path in _known_keys(below)}
    # pydantic's location also has indices of lists, even where the job file gives a single entry.
    section = [part for part in location[:-1] if not isinstance(part, int)]
    siblings = {path[-1]: path for place, path in places.items() if [*place[:-1]] == section}
    elsewhere: dict[str, tuple[str, ...]] = {}
    sections: dict[str, set[str]] = {}  # that have a word, by the word
    for path in sorted(places.values(), key=len):
        if len(path) <= 2:  # people do not mean deeper ones
            sections.setdefault(path[-1], set()).add(path[0])
        is_near = path[0] == key[0] or (path[0] not in _CHOSEN and len(path) <= 2)
        if path != key and is_near:
            elsewhere.setdefault(path[-1], path)
    # many sections have `name` and `where`
    elsewhere = {
        word: path for word, path in elsewhere.items() if path[0] == key[0] or len(sections[word]) == 1
    }
    word = str(location[-1])
    if (usual := _OTHER_NAMES.get(word)) and (len(key) == 1 or usual in siblings):
        word = usual
    if word.partition(".")[0] in siblings and "." in word:
        return f"write `{_nested((*key[:-1], *word.split('.')))}`"
    value = error["input"]
    line = "..."
    if _is_plain(key, value, job):
        with suppress(TypeError):  # Python may give a job values that YAML does not have, e.g. bytes
            line = yaml_of(public_value(value))
    if isinstance(value, str) and re.fullmatch(r"[-:\d\s]+(,[-:\d\s]+)+", value):
        line = f"[{value}]"
    argument = common_argument(word) if len(key) == 1 else None
    if argument == "prompt":
        return f"to render it, write `sweep: {{prompt: {line}}}`"
    for words, cutoff in (
        (siblings, 1.0 if argument == word else 0.7),
        (elsewhere, 1.0 if argument or len(key) > 1 else 0.8),
    ):
        if near := nearest(word, words, cutoff=cutoff):
            return f"did you mean `{'.'.join(words[near[0]])}`?"
    if len(key) == 1 and (argument := argument or common_argument(word, cutoff=0.7)):
        line = f"{{{argument}: {line}}}"
        if isinstance(value, list) or (argument == "seed" and not isinstance(value, int | float)):
            fix = f"to render every row with each, write `sweep: {line}`"
            return fix if argument == "seed" else f"{fix}; to give all rows the list, `defaults: {line}`"
        return f"to set it for every row, write `defaults: {line}`"
    if len(key) == 1:
        return (
            f"if it is an argument of the model, it belongs in `defaults: {{{word}: ...}}`; `framefleet "
            "schema` prints every key, with those of installed plugins"
        )
    return f"known here: {', '.join(siblings or elsewhere)}"


def _known_keys(model: type[BaseModel]) -> Iterator[tuple[Key, tuple[str, ...]]]:
    """Yield every key as pydantic locates it, with members of unions, and as it is written."""
    if issubclass(model, RootModel):  # a list, which has no keys of its own
        for member in _models_in(model.model_fields["root"].annotation):
            yield from _known_keys(member)
        return
    for own, field in model.model_fields.items():
        name = field.alias or own
        yield (name,), (name,)
        members = [] if own in NAMED else list(_models_in(field.annotation))  # below a name, see `_meant`
        for member in members:
            # pydantic's tag is the one value of the first key; "other" if that may be anything.
            first = get_args(next(iter(member.model_fields.values())).annotation) or ("other",)
            tag = (str(first[0]),) if len(members) > 1 else ()
            for place, path in _known_keys(member):
                yield (name, *tag, *place), (name, *path)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
