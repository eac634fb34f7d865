"""From a job to the job.json of its output, without secrets, for people and for commands that only read.

A job that would make other clips than those in the output is refused.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Any

import framefleet
from framefleet.jobs.doors import file_steps, job_kinds
from framefleet.jobs.job.job_json import JOB_JSON, Claim, fit_of, read_claim
from framefleet.jobs.job.output import base_of
from framefleet.jobs.job.paths import absolute_paths, without_scheme
from framefleet.jobs.job.schema import sections_not_stored
from framefleet.jobs.job.steps import decisive_sections, sections_with_steps
from framefleet.pipeline.engine import engine_of
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.model.environment import PACKAGES
from framefleet.pipeline.model.ip_adapter import IpAdapter
from framefleet.pipeline.model.lora import Lora
from framefleet.pipeline.model.sources.parts import ModelPart
from framefleet.pipeline.model.sources.source import public_name
from framefleet.pipeline.model.specs.dtypes import canonical_dtype
from framefleet.pipeline.outputs.layout import CLAIM, CLIPS, RECORDS, TABLES
from framefleet.pipeline.outputs.output import find_claim_as
from framefleet.pipeline.plugin import inner_outputs, sections
from framefleet.pipeline.request import inputs_in
from framefleet.pipeline.rows.inputs.fit import fitting_names

if TYPE_CHECKING:
    from framefleet.jobs.render.resolve import ResolvedJob, ResolvedModel  # imports codecs

_GIVEN = re.compile(rf"/{TABLES}/[0-9a-f]{{32}}\.parquet")


def is_table_above(table: str, output: str) -> bool:
    """Return whether an output is inside another one, which also stores the table."""
    above, _, name = output.rstrip("/").rpartition("/")
    is_inner = name in inner_outputs()
    return is_inner and table.startswith(above) and bool(_GIVEN.fullmatch(table.removeprefix(above)))


# What decides which clips a job makes. Fleet, retries, audit, ... may change from run to run.
_DECISIVE = ("table", "defaults", "overrides", "columns", "recipe")
# The rows themselves may change: the sweep, rows given in Python (stored in the output), and where their
# images are. So may what is stored of their steps.
_CHANGING = ("table", "sweep", "inputs", "keep")
# Names that both jobs have must mean the same; new names may be added, for new rows.
_NAMED = {
    "loras": ("sha256", "component"),
    "second_models": ("digest", "dtype"),
    "models": ("digest", "numerics"),
}
# Written without what is secret in their URLs, as are defaults that name images, and a section's arguments.
_MAY_HOLD_URLS = ("table", "overrides", "sweep", "inputs", "audit")
_MAX_SHOWN = 200  # characters of a value that differs


def check_claim(resolved: ResolvedJob) -> Claim | None:
    """Return what job.json says; None if there is none. Raises JobError if the output is another job's."""
    theirs = find_claim_as(resolved.store, JOB_JSON)
    if theirs is None:
        for section in job_kinds():
            if resolved.store.exists(f"{section}.json"):
                problem = f"{resolved.store.url_of('')} belongs to a job with `{section}`"
                raise JobError(problem, "choose another output")
        return None
    differences = differences_of(theirs.model_dump(), _description(resolved))
    if differences and not (resolved.store.list(RECORDS) or resolved.store.list(CLIPS)):
        return None  # a run that got no further: nothing is lost
    if differences:
        raise JobError(
            f"{resolved.store.url_of('')} holds clips of another job\n" + "\n".join(differences),
            "undo these changes, or choose another output; docs/output.md lists what may change between runs",
        )
    return theirs


def claim(resolved: ResolvedJob) -> None:
    """Claim the output for this job. Raises JobError if it is another's. Call while holding the lock."""
    description, is_written = _description(resolved), False
    if claimed := check_claim(resolved):
        theirs = claimed.model_dump()
        before, now = theirs["job"], description["job"]
        by_kind = {kind: before.get(kind, {}) for kind in _NAMED}
        is_written = all(by_kind[kind].keys() >= now[kind].keys() for kind in _NAMED)
        is_written &= all(before.get(key) == now[key] for key in _CHANGING)
        changing = {key: now[key] for key in ("output", *_CHANGING)}
        # Models and LoRAs that only rows of earlier runs name stay.
        job = {**before, **changing, **{kind: by_kind[kind] | now[kind] for kind in _NAMED}}
        steps = [*dict.fromkeys([*claimed.file_steps, *description["file_steps"]])]
        is_written &= steps == claimed.file_steps
        description = {**theirs, "job": job, "file_steps": steps}
        try:
            is_written &= read_claim(resolved.store) is not None
        except (FileNotFoundError, JobError):  # it was read from parts
            is_written = False
    if not is_written:
        content = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        resolved.store.write(CLAIM, content.encode())


def deciding_values(resolved: ResolvedJob) -> dict[str, Any]:
    """Return everything in a job, its model and the libraries that decides row_ids and rows/."""
    description = _description(resolved)
    job = {key: description["job"].get(key) for key in ("model", "models", *sections(), "on_invalid", "keep")}
    others = {key: description.get(key) for key in ("versions", "pipeline")}
    decisive = _decisive(description, sections_with_steps(description["job"]))
    return {**decisive, **job, **others}


def _description(resolved: ResolvedJob) -> dict[str, Any]:
    """Return the job with all values filled in, and without secrets."""
    model = {} if resolved.job.models else _opened(resolved.first)
    names = {"digest": "model_digest", "files": "model_files"}  # as job.json has always had them
    return {
        "framefleet": framefleet.__version__,
        "versions": {package: metadata.version(package) for package in ("torch", *PACKAGES)},
        "job": _job_values(resolved),
        "file_steps": [name for name, step in resolved.steps.items() if step.changes_file],
        "recipe_digest": resolved.recipes[resolved.job.recipe].digest,
        **{names.get(key, key): value for key, value in model.items()},
    }


def _job_values(resolved: ResolvedJob) -> dict[str, Any]:
    job, media = resolved.job, resolved.media
    values = job.model_dump(exclude={"storage_options", *sections_not_stored()})
    values |= {key: _public(values[key]) for key in _MAY_HOLD_URLS}
    stored = [name for name in sections() if name in values]
    arguments = {name: getattr(getattr(job, name), "model_extra", None) for name in stored}
    values |= {name: values[name] | _public(of_rows) for name, of_rows in arguments.items() if of_rows}
    bases = (model.plan.base.items() for model in resolved.models.values())
    of_inputs = {name for base in bases for name, value in base if inputs_in(value)}  # images and videos
    url_names = of_inputs & values["defaults"].keys()
    is_named = job.inputs.base is not None or job.table is None  # else paths start at the table
    inputs = values["inputs"] | {"base": public_location(base_of(job)) if is_named else None}
    if job.engine or not any(fitting_names(model.plan.spec) for model in resolved.models.values()):
        inputs.pop("fit")  # there is nothing to fit
    if job.models:
        opened = resolved.models.items()
        models = {
            name: values["models"][name] | _named_model(model) | _opened(model) for name, model in opened
        }
    else:
        models = (values["model"] or {}) | _named_model(resolved.first)
    loras = {name: lora for model in resolved.models.values() for name, lora in model.settings.loras.items()}
    written = {
        **values,
        "sweep": values["sweep"] if job.sweep else None,
        "output": resolved.store.url_of(""),
        "defaults": values["defaults"] | {name: _public(values["defaults"][name]) for name in url_names},
        "inputs": inputs,
        "models" if job.models else "model": models,
        "media": values["media"] | {"format": media.format, "encoder": media.codec, "crf": media.quality},
        **{name: step.written(values[name]) for name, step in resolved.steps.items()},
        "loras": {name: _where(lora) for name, lora in loras.items()},
        "second_models": {
            name: {
                "path": public_name(model.settings.path, None),
                "revision": model.settings.revision,
                "lock": model.settings.lock,
                "allow_pickle": model.settings.allow_pickle,
                "dtype": canonical_dtype(model.settings.dtype),
                "digest": model.digest,
            }
            for name, model in resolved.second_models.items()
        },
    }
    absolute_paths(written)
    return written


def _named_model(model: ResolvedModel) -> dict[str, Any]:
    """Return where a model is, in a form that works on any machine."""
    settings = model.settings
    adapter = {"ip_adapter": _where(settings.ip_adapter)} if settings.ip_adapter else {}
    return {
        "path": public_name(settings.path, None),
        "revision": settings.revision,
        "base": None,  # a single file is one of the parts
        "parts": {name: _where(part) for name, part in settings.parts.items()},
        **adapter,
    }


def _opened(model: ResolvedModel) -> dict[str, Any]:
    """Return what a model turned out to be."""
    return {
        "pipeline": model.spec.class_name,
        "preset": model.spec.preset.name if model.spec.preset else None,
        "numerics": model.identity.numerics,
        "digest": model.identity.model_digest,
        "files": dict(model.files),
    }


def public_location(location: str) -> str:
    """Return a path or URL that means the same in another folder, and shows no credentials."""
    return public_url(location) if "://" in location else os.path.abspath(os.path.expanduser(location))


def _public(value: Any) -> Any:
    """Return a value, nested or not, without what may be secret in its URLs."""
    if isinstance(value, Mapping):
        return {name: _public(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_public(inner) for inner in value]
    return public_url(value) if isinstance(value, str) else value


def _where(adapter: Lora | IpAdapter | ModelPart) -> dict[str, Any]:
    values = asdict(adapter) if isinstance(adapter, Lora) else adapter.model_dump()
    return values | {"path": public_name(adapter.path, None)}


def differences_of(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Return a line for each difference that makes these two different jobs; [] if they are the same."""
    names = {*sections_with_steps(theirs["job"]), *sections_with_steps(ours["job"])}
    gone = [name for name in theirs.get("file_steps", ()) if name not in file_steps()]
    of_both = [name for name in gone if name in ours.get("file_steps", ())]
    lines = [
        f"  {name}: {theirs['job'].get(name)} there, of a plugin that is not here; install it"
        for name in gone
        if name not in of_both
    ]
    theirs, ours = (
        _decisive(side, names) | {name: side["job"].get(name) for name in of_both} for side in (theirs, ours)
    )
    for key in sorted({*theirs, *ours}):
        # A null removes a default, which a missing key does not.
        null = "null" if theirs.get(key) is None and ours.get(key) is None else "unset"
        values = (theirs.get(key, "unset"), ours.get(key, "unset"))
        texts = (null if value is None else str(value) for value in values)
        there, here = (text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..." for text in texts)
        is_one_sided = key not in theirs or key not in ours
        if values[0] != values[1] and not (
            is_one_sided and key.startswith(tuple(f"{kind}." for kind in _NAMED))
        ):
            lines.append(f"  {key}: {there} there, {here} here")
    return lines


def _decisive(description: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return what must be the same in two descriptions. names: the sections with file steps to compare."""
    job = description["job"]
    keys = ("numerics", "recipe_digest", "model_digest")
    values = {key: job.get(key) for key in _DECISIVE} | {key: description.get(key) for key in keys}
    if engine := job.get("engine"):
        values |= {"engine": engine_of(engine).deciding(), "model_digest": None}  # which is of these settings
    if table := job.get("table"):  # if this output, or the one around it, stores the table: only the folder
        output = str(job.get("output")).rstrip("/")
        is_own = table.startswith(f"{output}/{TABLES}/") or is_table_above(table, output)
        values["table"] = TABLES if is_own else without_scheme(str(table))
    values |= decisive_sections(job, names)
    values["inputs"] = {"fit": fit_of(job)}
    values["media"] = {key: value for key, value in job["media"].items() if key not in ("previews", "embed")}
    for kind, decides in _NAMED.items():
        values[kind] = {
            name: {
                key: canonical_json(entry[key]) if isinstance(entry[key], Mapping) else entry[key]
                for key in decides
            }
            for name, entry in job.get(kind, {}).items()
        }
    return dict(flat("", values))


def flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what nested mappings hold, as ("model.dtype", "fp32")."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(f"{prefix}.{key}" if prefix else key, inner)
    else:
        yield prefix, value
