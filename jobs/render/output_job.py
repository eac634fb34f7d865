"""From an output to the job that made it, as job.json says, so that it can go on without its file.

job.json may be anybody's: what runs code or opens doors has to be said again by whoever runs it
(docs/damage.md). What is secret was never in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from framefleet.doors import clip_steps, inner_outputs, sections
from framefleet.jobs.job.file import load_job, set_values
from framefleet.jobs.job.job_json import claim_of
from framefleet.jobs.job.model import place_of
from framefleet.jobs.job.schema import Job, sections_not_stored
from framefleet.jobs.job.steps import kinds_of, sections_with_steps
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.layout import TABLES
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.text import setting

JOB_FILES = (".yaml", ".yml", ".json")
# Keys of job.json that a job file does not have: digests of what was found.
_FOUND = {
    "loras": ("sha256",),
    "second_models": ("digest",),
    "models": ("digest", "numerics", "files", "pipeline", "preset"),
}
# Stores of objects, which answer where the credentials are for. Behind other URLs there may be anything, as a
# web server of this machine's network.
STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "file", "hf")


def job_of(
    job: Job | str | Path | Mapping[str, Any], sets: Sequence[str] = (), unused: Sequence[str] = ()
) -> Job:
    """Return a job: of its file, of what that would hold, or of the output that it made.

    sets: values to replace, as of `load_job`. unused: as of `claimed_job`. Raises JobError.
    """
    is_output = isinstance(job, str | Path) and not is_job_file(job)
    return claimed_job(str(job), sets, unused) if is_output else load_job(job, sets)


def is_job_file(place: str | Path) -> bool:
    """Tell a job file from an output."""
    return Path(place).suffix in JOB_FILES and not Path(place).is_dir()


def claimed_job(output: str, sets: Sequence[str] = (), unused: Sequence[str] = ()) -> Job:
    """Return the job of an output. sets: as in `load_job`, in place of what job.json says.

    unused: sections that the caller does not use, left out unless `sets` has them, so they need no consent.
    Raises JobError where there is no job.json, or it is damaged, and for what it is not trusted with.
    """
    values = set_values(sets)
    store = Store(output, values.get("storage_options"))
    claim = claim_of(store)
    content: dict[str, Any] = claim.model_dump(exclude_unset=True)["job"]
    content.pop("storage_options", None)  # never written there: they say to whom our credentials are shown
    for section in (*sections_not_stored(), *unused):  # nor the first: anybody may have written them there
        content.pop(section, None)
    for kind, keys in _FOUND.items():
        entries = content.get(kind, {}).items()
        content[kind] = {name: {key: one[key] for key in one if key not in keys} for name, one in entries}
    for name in sections_with_steps(content):  # what they added, no job file has
        clip_steps()[name]().make_readable(content)
    if isinstance(
        table := content.get("table"), str
    ):  # in the output, or the one around it: where that is now
        old, new = str(content.get("output")).rstrip("/"), store.url_of("").rstrip("/")
        if is_table_above(table, old):
            old, new = old.rpartition("/")[0], new.rpartition("/")[0]
        content["table"] = new + table.removeprefix(old) if table.startswith(f"{old}/") else table
    for key in claim.withheld:
        if not _is_given(key, values):
            raise JobError(
                f"job.json has {key} only in part: it does not store users, passwords and queries of URLs",
                f"give it as {setting(key, '...')}; or give the job file",
            )
    job = load_job(content | {"output": output}, sets)
    for key, value in _untrusted(job):
        if not _is_given(key, values):
            raise JobError(
                f"job.json says {key}: {value!r}, which is not used without your consent",
                f"if that is right, give it as {setting(key, value)}; or give the job file",
            )
    return job


_GIVEN = re.compile(rf"/{TABLES}/[0-9a-f]{{32}}\.parquet")


def is_table_above(table: str, output: str) -> bool:
    """Return whether an output lies in another, and a table one of those that the latter stores."""
    above, _, name = output.rstrip("/").rpartition("/")
    is_inner = name in inner_outputs()
    return is_inner and table.startswith(above) and bool(_GIVEN.fullmatch(table.removeprefix(above)))


def _is_given(key: str, section: Any) -> bool:
    """Return whether `--set` says a value, by itself or with the section that it is in."""
    for name in key.split("."):
        if not isinstance(section, Mapping):
            return True
        if name not in section:
            return False
        section = section[name]
    return True


def _untrusted(job: Job) -> Iterator[tuple[str, Any]]:
    """Yield what would run code, write to other places, show any text file, or open a private network."""
    if ":" in job.recipe:
        yield "recipe", job.recipe
    for name, kind in kinds_of(job).items():
        yield from kind.untrusted(getattr(job, name))
    for name, model in sections().items():
        if not model.is_trusted and (section := getattr(job, name)):
            yield name, section.model_dump()
    if job.fleet.address not in (None, "auto"):
        yield "fleet.address", job.fleet.address
    if job.table is not None and not is_opened(job.table):
        yield "table", job.table
    for key, file in job.sweep.files.items():  # each line goes into the records, whatever the file is
        yield f"sweep.{key}", file
    if not all(map(is_opened, job.inputs.roots)):
        yield "inputs.roots", job.inputs.roots
    if job.inputs.base is not None and not is_opened(job.inputs.base):
        yield "inputs.base", job.inputs.base
    declared: dict[str, Any] = {place_of(name): model for name, model in job.by_name.items()}
    for place, model in declared.items():
        if disk := getattr(model.offload, "disk", None):
            yield f"{place}.offload.disk", disk
        for part, file in model.parts.items():
            if not is_opened(file.path):
                yield f"{place}.parts.{part}.path", file.path
        if (adapter := model.ip_adapter) and not is_opened(adapter.path):
            yield f"{place}.ip_adapter.path", adapter.path
    declared |= {f"loras.{name}": lora for name, lora in job.loras.items()}
    declared |= {f"second_models.{name}": model for name, model in job.second_models.items()}
    for name, section in declared.items():
        if not is_opened(section.path):
            yield f"{name}.path", section.path
        if section.allow_pickle:
            yield f"{name}.allow_pickle", True


def is_opened(place: str) -> bool:
    """Return whether a place is a folder, a hub model or in an object store."""
    scheme = re.match("([a-z0-9]+)://", place)
    is_plain = scheme[1] in STORES if scheme else "://" not in place
    return is_plain and "::" not in place and not place.startswith("~")
