"""job.json: what an output was made with. Written once; a job that would make other clips is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib import metadata
from typing import Any

import framefleet
from framefleet.doors import clip_steps, sections
from framefleet.jobs.job.job_json import JOB_JSON, Claim, read_claim
from framefleet.jobs.job.schema import Job, sections_not_stored
from framefleet.jobs.job.steps import decisive_sections
from framefleet.jobs.render.output_job import is_table_above
from framefleet.jobs.render.resolve import ResolvedJob, ResolvedModel, base_of
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.model.environment import PACKAGES
from framefleet.pipeline.model.ip_adapter import IpAdapter
from framefleet.pipeline.model.lora import Lora
from framefleet.pipeline.model.sources.source import public_name
from framefleet.pipeline.model.specs.dtypes import asked
from framefleet.pipeline.outputs.layout import CLAIM, CLIPS, RECORDS, TABLES, TRAINING
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.output import find_claim_as
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.recipes.second_model import SecondModel
from framefleet.pipeline.request import inputs_in

# What decides which clips a job makes. Fleet, retries, audit, ... may change from run to run.
_DECISIVE = ("table", "defaults", "columns", "recipe", "media")
# Which rows there are may change: the sweep, and rows that Python gave, which lie in the output; and with
# them where their images are.
_ROWS = ("table", "sweep", "inputs")
# Those that both have must be the same; others may be added, for rows that are added.
_NAMED = {
    "loras": ("sha256", "component"),
    "second_models": ("digest", "dtype"),
    "models": ("digest", "numerics"),
}
_MAX_SHOWN = 200  # characters of a value that differs


def check_claim(resolved: ResolvedJob) -> Claim | None:
    """Raise JobError when the output is another's; return what job.json says, None where it is nobody's."""
    theirs = find_claim_as(resolved.store, JOB_JSON)
    if theirs is None:
        if resolved.store.exists(TRAINING):
            raise JobError(f"{resolved.store.url_of('')} holds a training", "choose another output")
        return None
    differences = differences_of(theirs.model_dump(), _description(resolved))
    if differences and not (resolved.store.list(RECORDS) or resolved.store.list(CLIPS)):
        return None  # a run that got no further: nothing is lost
    if differences:
        raise JobError(
            f"{resolved.store.url_of('')} holds clips of another job\n" + "\n".join(differences),
            "undo these changes, or choose another output. What may change: "
            "docs/output.md#what-may-change-between-runs",
        )
    return theirs


def claim(resolved: ResolvedJob) -> None:
    """Make the output this job's. Raises JobError when it is another's. Call while holding the lock."""
    description = _description(resolved)
    if theirs := check_claim(resolved):
        ours, withheld, description = description["job"], description["withheld"], theirs.model_dump()
        theirs_named = {kind: description["job"].setdefault(kind, {}) for kind in _NAMED}
        is_written = all(theirs_named[kind].keys() >= ours[kind].keys() for kind in _NAMED)
        is_written &= all(description["job"].get(key) == ours[key] for key in _ROWS)
        is_written &= description["withheld"] == withheld
        if is_written and _is_whole(resolved.store):
            return
        description["job"] |= {key: ours[key] for key in ("output", *_ROWS)}
        description["withheld"] = withheld
        for kind in _NAMED:  # rows of earlier runs may name others
            theirs_named[kind] |= ours[kind]
    content = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    resolved.store.write(CLAIM, content.encode())


def deciding_values(resolved: ResolvedJob) -> dict[str, Any]:
    """Return what of a job, its model and the libraries decides the row_ids of a table and its rows/."""
    said = _description(resolved)
    keys = ("model", "models", *clip_steps(), "on_invalid")
    job = {key: said["job"][key] for key in keys}
    return {**_decisive(said), **job, "versions": said["versions"], "pipeline": said.get("pipeline")}


def _is_whole(store: Store) -> bool:
    """Return whether job.json is there as it was written; if not, it was read from parts."""
    try:
        return read_claim(store) is not None
    except (FileNotFoundError, JobError):
        return False


def _description(resolved: ResolvedJob) -> dict[str, Any]:
    """Return the job with every value that it left open, and without secrets."""
    job = resolved.job.model_dump(exclude={"storage_options", *sections_not_stored()})
    job["table"] = None if resolved.job.table is None else public_location(resolved.job.table)
    job["sweep"] = _in_any_folder(job["sweep"]) if resolved.job.sweep else None
    job["output"] = resolved.store.url_of("")
    named = _names_of_inputs(resolved)
    job["defaults"] = {name: _public(one) if name in named else one for name, one in job["defaults"].items()}
    job["overrides"] = _public(job["overrides"])
    for name, arguments in _arguments_of_sections(resolved.job).items():
        job[name] |= _public(arguments)
    job["inputs"] = _public(job["inputs"]) | {"base": _base(resolved.job)}
    for name, model in resolved.models.items():
        said = job["models"][name] if name else job["model"]
        said |= {"path": public_name(model.settings.path, None), "revision": model.settings.revision}
        if adapter := model.settings.ip_adapter:
            said["ip_adapter"] = _where(adapter)
        if name:
            said |= _found(model)
    media = resolved.media
    job["media"] |= {"format": media.format, "encoder": media.codec, "crf": media.quality}
    job |= {name: step.written(job[name]) for name, step in resolved.steps.items()}
    loras = {name: lora for model in resolved.models.values() for name, lora in model.settings.loras.items()}
    job["loras"] = {name: _where(lora) for name, lora in loras.items()}
    job["second_models"] = {name: _of(model) for name, model in resolved.second_models.items()}
    found = _found(resolved.first)  # of a job's only model, as job.json has always had it
    found |= {"model_digest": found.pop("digest"), "model_files": found.pop("files")}
    return {
        "framefleet": framefleet.__version__,
        "versions": {package: metadata.version(package) for package in ("torch", *PACKAGES)},
        "job": job,
        "withheld": _withheld(resolved),
        "recipe_digest": resolved.recipes[resolved.job.recipe].digest,
        **({} if resolved.job.models else found),
    }


def _found(model: ResolvedModel) -> dict[str, Any]:
    """Return what was found of a model of several; see `output_job`, which takes it out again."""
    preset = model.spec.preset.name if model.spec.preset else None
    return {
        "pipeline": model.spec.class_name,
        "preset": preset,
        "numerics": model.identity.numerics,
        "digest": model.identity.model_digest,
        "files": dict(model.files),
    }


def public_location(location: str) -> str:
    """Return a path or URL that means the same in another folder, and shows no credentials."""
    return public_url(location) if "://" in location else os.path.abspath(os.path.expanduser(location))


def _in_any_folder(sweep: Any) -> Any:
    """Return a sweep whose text files are named as other folders find them, without secrets in URLs."""
    if not isinstance(sweep, dict):
        return _public(sweep)
    return {  # values of a word that is called `file` are a list
        name: public_location(value) if name == "file" and isinstance(value, str) else _in_any_folder(value)
        for name, value in sweep.items()
    }


def _public(value: Any) -> Any:
    """Return a value, nested or not, without what may be secret in its URLs."""
    if isinstance(value, Mapping):
        return {name: _public(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_public(inner) for inner in value]
    return public_url(value) if isinstance(value, str) else value


def _base(job: Job) -> str | None:
    """Return where paths that rows name start from in any folder; None for the table's own."""
    is_named = job.inputs.base is not None or job.table is None
    return public_location(base_of(job)) if is_named else None


def _names_of_inputs(resolved: ResolvedJob) -> set[str]:
    """Return the arguments that name images or videos in the job itself; their URLs may hold secrets."""
    bases = (model.plan.base for model in resolved.models.values())
    return {name for base in bases for name, value in base.items() if inputs_in(value)}


def _withheld(resolved: ResolvedJob) -> list[str]:
    """Return the keys whose values are written down with less than rows need: URLs without signatures."""
    job, named = resolved.job, _names_of_inputs(resolved)
    asked = {
        "defaults": {name: value for name, value in job.defaults.items() if name in named},
        "overrides": job.overrides,
        **_arguments_of_sections(job),
        "sweep": job.sweep.model_dump(),
        "inputs": job.inputs.model_dump(),
    }
    return [key for key, value in flat("", asked) if _public(value) != value]


def _arguments_of_sections(job: Job) -> dict[str, Mapping[str, Any]]:
    """Return the arguments of rows that sections of plugins have."""
    added = {name: getattr(job, name) for name in sections()}
    return {name: one.row_arguments for name, one in added.items() if one is not None and one.row_arguments}


def _where(adapter: Lora | IpAdapter) -> dict[str, Any]:
    return asdict(adapter) | {"path": public_name(adapter.path, None)}


def _of(model: SecondModel) -> dict[str, Any]:
    settings = model.settings
    return {
        "path": public_name(settings.path, None),
        "revision": settings.revision,
        "lock": settings.lock,
        "allow_pickle": settings.allow_pickle,
        "dtype": asked(settings.dtype),
        "digest": model.digest,
    }


def differences_of(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Return what makes of two descriptions those of different jobs, a line for each; [] for one job."""
    return list(_differences(_decisive(theirs), _decisive(ours)))


def _decisive(description: Mapping[str, Any]) -> dict[str, Any]:
    job = description["job"]
    keys = ("numerics", "recipe_digest", "model_digest")
    values = {key: job.get(key) for key in _DECISIVE} | {key: description.get(key) for key in keys}
    values["overrides"] = job.get("overrides") or {}  # job.json of earlier versions has none
    values["table"] = _named_table(job)
    values["media"] = _settled(job["media"])
    values |= decisive_sections(job)
    for key in ("previews", "c2pa"):  # the first changes no clip, the second is now a clip step's
        values["media"].pop(key, None)
    for kind, decides in _NAMED.items():
        found = job.get(kind, {}).items()  # job.json of earlier versions has no `models`
        values[kind] = {name: {key: _spelled(one[key]) for key in decides} for name, one in found}
    return dict(flat("", values))


def _spelled(value: Any) -> Any:
    return canonical_json(value) if isinstance(value, Mapping) else value


def _named_table(job: Mapping[str, Any]) -> str | None:
    """Return the table's place; of those that the output stores, or the one above it, the folder alone."""
    table, output = job.get("table"), str(job.get("output")).rstrip("/")
    if not table:
        return None
    is_own = table.startswith(f"{output}/{TABLES}/") or is_table_above(table, output)
    return TABLES if is_own else str(table)


def _settled(media: Mapping[str, Any]) -> dict[str, Any]:
    """Return how clips are stored, with what is left open: earlier versions wrote down what that is."""
    try:
        known = Media(**{name: media[name] for name in ("format", "encoder", "crf") if name in media})
    except JobError:  # of no job
        return dict(media)
    return {**media, "encoder": known.codec, "crf": known.quality}


def flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what nested mappings hold, as ("model.dtype", "fp32")."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(f"{prefix}.{key}" if prefix else key, inner)
    else:
        yield prefix, value


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*theirs, *ours}):
        there, here = theirs.get(key, "unset"), ours.get(key, "unset")
        is_one_sided = key not in theirs or key not in ours
        if there != here and not (is_one_sided and key.startswith(tuple(f"{kind}." for kind in _NAMED))):
            yield f"  {key}: {_short(there)} there, {_short(here)} here"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
