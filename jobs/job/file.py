"""From a job file and `--set key=value` to a `Job`, or to every mistake in them with its line and fix."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from typing_extensions import TypeVar  # with a default, as Python 3.13 has it

from framefleet.cluster.fleet.settings import missing_gpu
from framefleet.jobs.doors import JobKind, job_kind
from framefleet.jobs.job.mistakes import NAMED, mistakes_in
from framefleet.jobs.job.paths import JOB_FILES, check_paths, resolve_paths
from framefleet.jobs.job.schema import Job, TableJob
from framefleet.jobs.job.section import Key
from framefleet.jobs.job.yaml_text import MAX_CHARACTERS, MAX_YAML_DEPTH, parse_yaml
from framefleet.pipeline.errors import FramefleetError, JobError, command, quoted
from framefleet.pipeline.guards.mistakes import expected
from framefleet.pipeline.guards.redaction import is_secret_name, keep_secrets, public_text, public_url
from framefleet.pipeline.guards.regular_file import check_regular
from framefleet.pipeline.model.specs.dtypes import without_torch
from framefleet.pipeline.outputs.layout import CLAIM
from framefleet.pipeline.plugin import broken_plugins

if TYPE_CHECKING:
    from framefleet.pipeline.outputs.output import Output

AnyJob = TypeVar("AnyJob", bound=TableJob, default=Job)
_BEGINNING = 256  # bytes by which other kinds of files are recognized
_NOWHERE: Mapping[Key, str] = {}


def load_job(
    job: AnyJob | str | Path | Mapping[str, Any] | None,
    sets: Sequence[str] = (),
    *,
    kind: type[AnyJob] = Job,  # type: ignore[assignment]  # the default of AnyJob
    table: str | None = None,
    model: str | None = None,
    output: str | None = None,
    is_run: bool = False,
) -> AnyJob:
    """Return the job of a file, of a mapping of its keys, or of options alone; a `Job` as it is.

    sets: keys to replace, e.g. "fleet.workers=2", with values in YAML. table, model, output: values of these
    keys, as text; sets override them. All of these are ignored for a `Job`. is_run: the job runs now, so this
    machine must have what its workers need. Raises JobError.
    """
    if isinstance(job, kind):
        return job
    values, places, file = dict[str, Any](), dict[Key, str](), None
    if isinstance(job, Mapping):
        values = _as_in_a_file(dict(job))
    elif job is not None:
        fix = "give a job file's path, or a mapping of its keys; rows in Python are passed as `table`"
        check_job_place(str(job))
        file = Path(job) if isinstance(job, str) else expected(job, Path, "job", fix)
        values, places = _read(file)
    _check_overrides(values, places)
    options = {"table": table, "model": model, "output": output}
    texts = {option: text for option, text in options.items() if text is not None}
    if file is not None:
        of_model = {"model": {"path": model}} if isinstance(values.get("model"), dict) and model else {}
        resolve_paths(values, file, replaced={**set_values(sets), **texts, **of_model})
    for option, text in texts.items():
        _check_text(text, f"--{option}")
        # A model given as an option replaces the path of a mapping, and keeps its dtype.
        is_path = option == "model" and isinstance(values.get(option), dict)
        _put(values, places, (option, "path") if is_path else (option,), text, place=f"--{option}")
    _put_all(values, places, sets)
    keep_secrets(values)
    values = _without_nulls(values)
    check_paths(values)
    if not values.keys() <= kind.model_fields.keys():
        for error in broken_plugins():  # the key may belong to one of them
            raise error
    _check_texts_of_sweep(values, places, file.parent if file else Path())
    try:
        loaded = kind.model_validate(values)
    except ValidationError as error:
        mistakes = list(mistakes_in(error, values, places, kind, has_options=not isinstance(job, Mapping)))
        problem, fix = mistakes[0]
        if len(mistakes) > 1:
            problem = "\n".join(f"{problem} ({fix})" for problem, fix in mistakes)
            fix = "`framefleet schema` prints every key and what it takes"
        raise JobError(problem, fix) from None
    if isinstance(loaded, Job) and loaded.overrides:
        _check_sweep(loaded)
    if file is not None:
        loaded = loaded.in_folder(str(file.parent.resolve()))
    if is_run:
        check_gpu(loaded, places)
    return loaded


def _check_overrides(values: Mapping[str, Any], places: Mapping[Key, str]) -> None:
    """Raise JobError for a null among a file's overrides; by `--set`, it takes back the file's value."""
    overrides = values.get("overrides")
    for name, value in overrides.items() if isinstance(overrides, dict) else ():
        if value is None:
            where = f"{place}: " if (place := places.get(("overrides", name))) else ""
            problem = f"{where}overrides.{name} is null, which overrides nothing"
            fix = f"leave it out; for rows that do not set it, write `defaults: {{{name}: null}}`"
            raise JobError(problem, fix)


def _check_sweep(job: Job) -> None:
    """Raise JobError for values of the sweep that an override would replace in every row."""
    from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS
    from framefleet.pipeline.rows.tables.other_words import SECONDS, SIDES, SIZE_WORD  # imports pyarrow

    frames = (SECONDS, *FRAME_PARAMETERS)
    swept = {*job.sweep.factors, *(job.sweep.sample.over if job.sweep.sample else ())}
    for name in sorted(swept):
        ways: list[tuple[str, ...]] = [(name,)]  # names of overrides that together replace it
        ways += [(SIZE_WORD,)] * (name in SIDES) + [SIDES] * (name == SIZE_WORD)
        ways += [(each,) for each in frames] * (name in frames)
        override = next((way[0] for way in ways if job.overrides.keys() >= {*way}), None)
        if override and f"{{{name}}}" not in str(job.sweep):  # else the texts of rows still differ
            problem = f"sweep.{name} would do nothing, as overrides.{override} holds for all rows"
            also = " (--steps sets the override)" if override == "num_inference_steps" else ""
            raise JobError(problem, f"leave one of them out{also}")


def _check_texts_of_sweep(values: Mapping[str, Any], places: Mapping[Key, str], folder: Path) -> None:
    """Raise JobError for a swept text that is the name of a file. folder: the job file's."""
    sweep = values.get("sweep")
    for name, written in sweep.items() if isinstance(sweep, dict) else ():
        place = places.get(("sweep", name), "")
        is_option = place.startswith("--")  # whose paths start in the current folder
        for text in written if isinstance(written, list) else [written]:
            is_named = isinstance(text, str) and (text.endswith(".txt") or (name == "prompt" and "." in text))
            file = text.removeprefix("@") if is_named and isinstance(written, list) else text
            if is_named and os.path.isfile(file if is_option else folder / file):
                where = f"{place}: " if place and not is_option else ""
                problem = f"{where}sweep.{name} has {text!r}, which is the name of a file"
                fix = f"write `sweep: {{{name}: {{file: {file}}}}}`"
                if is_option:
                    words = ("--prompt", f"@{file}") if name == "prompt" else ("--sweep", f"{name}=@{file}")
                    fix = f"write {quoted(*words)}, and no other values of it"
                raise JobError(problem, f"to render each of its lines, {fix}")


def _as_in_a_file(value: Any) -> Any:
    """Return a copy with paths, torch dtypes and torch devices as text, and arrays as lists."""
    if isinstance(value, Mapping):
        return {key: _as_in_a_file(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_in_a_file(part) for part in value]
    if type(value).__module__.partition(".")[0] in ("numpy", "pandas") and hasattr(value, "tolist"):
        return _as_in_a_file(value.tolist())
    if isinstance(value, PurePath):
        return str(value)
    try:
        return copy.deepcopy(without_torch(value))
    except TypeError:  # e.g. a generator, which is refused later
        return value


def devices_of(job: TableJob) -> dict[Key, str]:
    """Return the device of each of the job's models, by its key in the job."""
    return {
        ("models", name, "device") if name else ("model", "device"): section.device
        for name, section in job.by_name.items()
    }


def check_gpu(job: TableJob, places: Mapping[Key, str] = _NOWHERE) -> None:
    """Raise JobError if workers would start on this machine, and need a GPU that it does not have.

    places: where each key was written.
    """
    if error := missing_gpu(job.fleet, devices_of(job), places):
        raise error


def job_kind_of(path: str | Path | None, sets: Sequence[str] = ()) -> JobKind | None:
    """Return the kind of a job file, with what --set adds; None: it is rendered. Raises JobError."""
    values = _read(Path(path), keep=True)[0] if path is not None else {}
    return job_kind([*values, *set_values(sets)])


def set_values(sets: Sequence[str]) -> dict[str, Any]:
    """Return the values of `--set a.b=c`, nested as in a job file. Raises JobError."""
    values: dict[str, Any] = {}
    _put_all(values, {}, sets)
    keep_secrets(values)
    return values


def storage_options(sets: Sequence[str] | None, *, is_alone: bool = True) -> dict[str, Any]:
    """Return the storage options that `--set` gives. Raises JobError, if `is_alone` for any other key too."""
    values = options_alone(sets, "storage_options") if is_alone else set_values(sets or [])
    return values.get("storage_options", {})


def options_alone(sets: Sequence[str] | None, *sections: str) -> dict[str, Any]:
    """Return the values of `--set`, nested. Raises JobError for a key that is not in these sections."""
    for key, _ in map(_parse_set, sets or []):
        if key[0] not in sections or len(key) < 2:
            problem = f"--set {'.'.join(key)}: only {' and '.join(sections)} can be set here"
            option = f"{sections[0]}.{key[-1]}"
            raise JobError(problem, f"leave it out; an option of the store is written `{option}`")
    return set_values(sets or [])


def output_at(place: str, sets: Sequence[str] | None, *, is_rendered: bool = False) -> Output:
    """Open the output that a command names. Raises JobError if there is none.

    sets: the command's --set. is_rendered: inner outputs alone are not enough.
    """
    from framefleet.pipeline.outputs.output import Output  # slow to import

    open_it = Output.open_rendered if is_rendered else Output.open
    return open_it(place, storage_options(sets))


def check_job_place(place: str, *, of: str = "") -> None:
    """Raise JobError for an output or a table where a job file belongs. of: the command's name."""
    from framefleet.pipeline.rows.tables.formats import file_format  # slow to import

    if of and Path(place).suffix not in JOB_FILES and file_format(place):
        fix = f"give the job file that has it as `table`: {command(of, 'JOB.YAML')}"
        if of == "add":
            fix = f"the job file comes first: {command('add', 'JOB.YAML', place)}"
        raise JobError(f"{place} is a table, not a job file", fix)
    if "://" in place or os.path.isdir(place):
        fix = "give the job file that has it as `output`"
        problem = f"{public_url(place)} is an output, and a job file belongs here"
        raise JobError(problem, f"{fix}: {command(of, 'JOB.YAML')}" if of else fix)


def check_output_place(place: str) -> None:
    """Raise JobError for a file where an output belongs."""
    from framefleet.pipeline.rows.tables.formats import file_format

    if Path(place).suffix not in JOB_FILES and file_format(place):
        fix = "give an output: the folder or URL that a job file names as `output`"
        raise JobError(f"{place} is a table, not an output", fix)
    if Path(place).name == CLAIM:
        raise JobError(f"{place} is a file of an output", f"give the output: {Path(place).parent}")
    try:
        output = load_job(place).output
    except FramefleetError:
        raise JobError(f"{place} is a file, not an output", "give an output: a folder or a URL") from None
    raise JobError(f"{place} is a job file, not an output", f"give its output: {output}")


def config_values(sets: Sequence[str]) -> dict[str, Any]:
    """Return the values of `--set` for `model convert`, e.g. {"vae.norm_num_groups": 8}. Raises JobError."""
    return {".".join(key): value for key, value in map(_parse_set, sets)}


def places(texts: Sequence[str], option: str) -> dict[str, str]:
    """Return the places that an option such as `--lora name=place` gives, by name. Raises JobError."""
    pairs = [text.partition("=") for text in texts]
    for name, equals, place in pairs:
        if not (name and equals and place):
            problem = f"{option} {public_text(name + equals + place)}: not name=place"
            raise JobError(problem, f"write it as {option} style=./style")
    return {name: place for name, _, place in pairs}


_piped: dict[Path, str] = {}  # what was read of a pipe, to be read once more


def _read(path: Path, *, keep: bool = False) -> tuple[dict[str, Any], dict[Key, str]]:
    """Return a file's values, and where they are. keep: it is read again; a pipe has its text only once."""
    if path.suffix not in JOB_FILES:
        from framefleet.pipeline.rows.tables.formats import file_format  # slow to import

        if file_format(str(path)):
            problem = f"{path} is a table, and a job file belongs here"
            raise JobError(problem, f"write it as {quoted('--table', path)}")
    try:
        if path.is_fifo() and not path.is_relative_to("/dev"):  # <(...) of a shell, which has a writer
            check_regular(path)
        if (text := _piped.pop(path, "")) == "":
            with open(path, encoding="utf-8-sig") as file:
                text = file.read(MAX_CHARACTERS + 1)
        if keep and not path.is_file():
            _piped[path] = text
    except OSError as error:
        raise JobError(f"job file {path} cannot be read: {error.strerror}", "check its path") from error
    except UnicodeDecodeError as error:
        from framefleet.pipeline.rows.tables.formats import mistaken_file  # slow to import

        if mistake := mistaken_file(path.open("rb").read(_BEGINNING), str(path)):
            problem = f"{mistake.problem}, and a job file belongs here"
            raise JobError(problem, f"{mistake.fix}; a table is given with --table") from None
        raise JobError(f"job file {path} is not UTF-8: {error}", "save it as UTF-8 text") from error
    values, lines = parse_yaml(text, source=str(path))
    if not isinstance(values, dict):
        problem = f"job file {path} is not a mapping"
        raise JobError(problem, "write `table:`, `output:` and `model:` on lines of their own")
    return values, {key: f"{path} line {line}" for key, line in lines.items()}


def _check_text(text: str, option: str) -> None:
    """Raise JobError for bytes that are not UTF-8: a terminal passes on whatever was typed."""
    try:
        text.encode()
    except UnicodeEncodeError:
        problem = f"{option} has bytes that are not UTF-8"
        raise JobError(problem, "write it in UTF-8, or rename the file that it names") from None


def _parse_set(text: str) -> tuple[tuple[str, ...], Any]:
    name, equals, value = text.partition("=")
    _check_text(text, f"--set {name}" if equals else "--set")
    key = tuple(name.strip().split("."))
    if not equals or not all(key):
        shown = re.match(r"[\w.]*", text)  # what follows may be a secret
        raise JobError(f"--set {shown and shown[0]}: not key=value", "write it as --set fleet.workers=2")
    if len(key) > MAX_YAML_DEPTH:
        problem = f"--set {name:.80}...: it nests more than {MAX_YAML_DEPTH} levels deep"
        raise JobError(problem, "check the dots")
    try:
        parsed, _ = parse_yaml(value, source=f"--set {name}")
    except JobError as error:
        if not is_secret_name(name):
            raise
        raise JobError(f"--set {name}: not YAML", error.fix) from None  # its own text quotes the value
    return key, parsed


def _put_all(values: dict[str, Any], places: dict[Key, str], sets: Sequence[str]) -> None:
    for text in sets:
        key, value = _parse_set(text)
        _put(values, places, key, value, place=f"--set {'.'.join(key)}")


def _put(values: dict[str, Any], places: dict[Key, str], key: Key, value: Any, *, place: str) -> None:
    """Put a value into nested mappings, creating those that are missing."""
    at: dict[Any, Any] = values
    for index, part in enumerate(key[:-1]):
        below = at.get(part)
        if isinstance(below, str) and _is_of_file(key[: index + 1]):
            below = {"path": below}
        elif isinstance(below, str) and key[index] == "placement":
            below = {"type": below}
        at[part] = below if isinstance(below, dict) else {}
        at = at[part]
        above = key[: index + 1]
        before = places.get(above, place)
        places[above] = before if place in before else f"{before} and {place}"
    at[key[-1]] = value
    for replaced in [other for other in places if other[: len(key)] == key]:  # lines of a file
        del places[replaced]
    places[key] = place


def _is_of_file(key: Key) -> bool:
    """Return whether a text at this key is short for {path: text}."""
    is_named = len(key) == 2 and key[0] in NAMED
    return is_named or key in (("model",), ("audit", "against", "model")) or key[-2:-1] == ("parts",)


def _without_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_nulls(value) if isinstance(value, dict) and key != "defaults" else value
        for key, value in values.items()
        if value is not None
    }
