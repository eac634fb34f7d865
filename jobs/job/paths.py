"""In: the values of a job. Out: the paths that they name; those of a job file start in its folder.

Paths in cells of tables, and in `defaults` and `sweep` in place of cells, are not resolved here: they start
at `inputs.base`.
"""

from __future__ import annotations

import glob
import itertools
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framefleet.jobs.job.section import Key
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.model.sources.headers import GGUF
from framefleet.pipeline.model.sources.selection import is_weights
from framefleet.pipeline.plugin import sections
from framefleet.pipeline.rows.sweeps.settings import MARKED_FILE
from framefleet.pipeline.rows.tables.table_source import source_mark

log = logging.getLogger(__name__)

JOB_FILES = (".yaml", ".yml", ".json")
_MODELS = (("model",), ("models", "*"), ("audit", "against", "model"))
# Keys whose texts may be paths or hub names.
_NAMES: tuple[Key, ...] = (
    *(
        (*key, *more)
        for key in (*_MODELS, ("second_models", "*"), ("loras", "*"))
        for more in ((), ("path",), ("ip_adapter", "path"))
    ),
    *((*key, *more) for key in _MODELS for more in (("base",), ("parts", "*"), ("parts", "*", "path"))),
)
# Keys whose texts are paths or URLs.
_PATHS: tuple[Key, ...] = (
    ("table",),
    ("output",),
    *((*key, "lock") for key in (*_MODELS, ("second_models", "*"))),
    *((*key, "offload", "disk") for key in _MODELS),
    ("inputs", "base"),
    ("inputs", "roots", "*"),
    ("sweep", "*", "file"),
    ("sweep", "sample", "over", "*", "file"),
    ("sweep", "wildcards"),
    ("train", "prepared"),
)
_MARKED_FILES: tuple[Key, ...] = (("sweep", "*"), ("sweep", "sample", "over", "*"))  # as `@prompts.txt`
_VARIABLE = re.compile(r"\$\w+|\$\{\w+\}|^%[A-Za-z]\w*%")
_SET = "--set"  # with double quotes, so that the shell replaces the variable
_SCHEME = re.compile(r"(?:^|/)(([A-Za-z][A-Za-z0-9+.-]+):(/+))")
_BRACES = re.compile(r"\{(?!date\})[^{}/]*\}")
_VARIABLE_IN_URL = re.compile(r"\$[A-Z_][A-Z0-9_]*|\$\{\w+\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedPath:
    """A text of a job that names a place."""

    key: tuple[Any, ...]
    at: Any  # the mapping or list that holds it, below `key[-1]`
    may_be_of_hub: bool
    mark: str = ""  # what stands before the path

    @property
    def text(self) -> str:
        text: str = self.at[self.key[-1]]
        return text.removeprefix(self.mark)

    @property
    def place(self) -> str:
        return ".".join(map(str, self.key))

    def replace(self, text: str) -> None:
        self.at[self.key[-1]] = self.mark + text


def without_scheme(location: str) -> str:
    """Return a path without `file://`: one place has one name."""
    return re.sub("^(file|local)://", "", location)


def paths_in(values: Any) -> Iterator[NamedPath]:
    """Yield every path, URL and hub name in a job."""
    added = tuple((name, *key) for name, section in sections().items() for key in section.paths)
    for keys, may_be_of_hub in ((_NAMES, True), ((*_PATHS, *added), False)):
        for key in keys:
            for full_key, at in _matches(values, key):
                if isinstance(text := at[full_key[-1]], str) and text:
                    mark = source_mark(text) if key == ("table",) else ""
                    yield NamedPath(key=full_key, at=at, may_be_of_hub=may_be_of_hub or bool(mark), mark=mark)
    for key in _MARKED_FILES:
        for full_key, at in _matches(values, key):
            if isinstance(at[full_key[-1]], str) and MARKED_FILE.fullmatch(at[full_key[-1]]):
                yield NamedPath(key=full_key, at=at, may_be_of_hub=False, mark="@")


def _matches(value: Any, key: Key, above: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield each full key that matches, and the mapping or list with its value. "*" matches anything."""
    names: Any = ()
    if isinstance(value, Mapping):
        names = list(value) if key[0] == "*" else [key[0]] if key[0] in value else []
    elif isinstance(value, list) and key[0] == "*":
        names = range(len(value))
    for name in names:
        if len(key) == 1:
            yield (*above, name), value
        else:
            yield from _matches(value[name], key[1:], (*above, name))


def resolve_paths(values: dict[str, Any], job: Path, *, replaced: Mapping[str, Any]) -> None:
    """Make relative paths of a job file start in its folder.

    A file that is only in the current folder is read from there, with a warning. An output never is, so that
    one job file has one output. A name that is in neither folder may be on the hub. replaced: the values that
    options override.
    """
    for place in paths_in(values):
        is_relative = "://" not in place.text and not place.text.startswith(("~", "/"))
        if not is_relative or _is_replaced(place.key, replaced):
            continue
        parts = itertools.takewhile(lambda part: not glob.has_magic(part), Path(place.text).parts)
        stem = str(Path(*parts))  # before the first wildcard
        is_next, is_here = os.path.lexists(job.parent / stem), os.path.lexists(stem)
        if _VARIABLE.search(place.text) and not is_next:
            continue  # see `check_paths`
        is_elsewhere = is_here and not is_next and job.parent.resolve() != Path.cwd()
        # A model's path and parts may be files of the hub: org/name/file.
        is_file = is_weights(place.text) or place.text.endswith(GGUF)
        is_of_model = place.key[0] in ("model", "models") and not {"path", "parts"}.isdisjoint(place.key)
        is_file &= not (is_of_model and place.text.count("/") > 1)
        may_be_of_hub = place.may_be_of_hub and not (is_file or place.text.startswith(("./", "../")))
        if place.place == "output" or is_next or not (is_here or may_be_of_hub):
            place.replace(str(job.parent / place.text))
        elif is_elsewhere:
            log.warning("%s: %s is in the current folder, not next to the job file", place.place, place.text)


def absolute_paths(values: dict[str, Any]) -> None:
    """Make the paths of a job absolute; hub names stay as they are."""
    for place in paths_in(values):
        place.replace(absolute_path(place.text, may_be_of_hub=place.may_be_of_hub))


def absolute_path(text: str, *, may_be_of_hub: bool = False) -> str:
    """Return a path as an absolute path; a URL or a hub name as it is."""
    path = os.path.expanduser(text)
    is_path = "://" not in path and (not may_be_of_hub or os.path.exists(path))
    return os.path.abspath(path) if is_path else text


def check_paths(values: Mapping[str, Any]) -> None:
    """Raise JobError for a path that does not exist and was meant to be something else.

    I.e. one with an environment variable, which may differ on workers; a misspelt URL; or an output with an
    unknown placeholder.
    """
    for place in paths_in(values):
        if os.path.lexists(os.path.expanduser(place.text)):
            continue
        scheme = _SCHEME.search(place.text)
        if scheme and not scheme[1].startswith(url := f"{scheme[2].lower()}://"):
            from fsspec import available_protocols  # slow to import

            if scheme[2].lower() in available_protocols():
                problem = f"{place.place} is {public_url(place.text[scheme.start(1) :])}"
                raise JobError(
                    problem, f"write `{url}`: a scheme is in lower case, with two slashes after it"
                )
        variable = (_VARIABLE_IN_URL if "://" in place.text else _VARIABLE).search(place.text)
        if variable:
            raise JobError(
                f"{place.place} is {public_url(place.text)}, and environment variables are not replaced",
                f"write what {variable[0]} is; or let your shell replace it, in an option: "
                f'{_SET} {place.place}="{public_url(place.text)}"',
            )
        braces = _BRACES.search(place.text)
        if braces and place.place == "output":
            problem = f"output is {public_url(place.text)}, and nothing replaces {braces[0]}"
            raise JobError(problem, "{date} is the only placeholder; remove the braces")


def _is_replaced(key: tuple[Any, ...], replaced: Any) -> bool:
    """Return whether an option overrides this path, or a key above it."""
    for name in key:
        if isinstance(replaced, str):
            return True
        if not isinstance(replaced, Mapping) or name not in replaced:
            return False
        replaced = replaced[name]
    return isinstance(replaced, str) or (isinstance(replaced, Mapping) and "path" in replaced)
