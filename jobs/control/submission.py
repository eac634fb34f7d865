"""From a job to a copy of it, with the modules it names, that a Ray cluster runs by itself."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from framefleet.cluster.fleet.actors import modules_to_ship
from framefleet.cluster.fleet.submission import Submission, find_submission, logs_of, submit_files
from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.output import store_of_job
from framefleet.jobs.job.paths import absolute_paths
from framefleet.jobs.job.schema import Job
from framefleet.jobs.job.steps import open_steps
from framefleet.jobs.render.python_table import with_table
from framefleet.jobs.render.row_source import base_of
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.recipes.recipe import find_recipe
from framefleet.pipeline.text import command

_FILE = "job.json"
_COMMAND = command("render", _FILE, "--set", "fleet.address=auto")


def submit(
    job: Job | str | Path | Mapping[str, Any], *, table: object = None, address: str | None = None
) -> Submission:
    """Have a Ray cluster render a job by itself, so that this machine may go; return at once.

    table: rows in place of the job's table, as `render` takes them. address: of the cluster's job server, as
    http://127.0.0.1:8265; None: as `ray job` finds it. The cluster must reach what the job names: table,
    model, output. Modules of its recipe and its clip steps go with it. Raises JobError, FleetError.
    """
    loaded = load_job(job) if table is None else with_table(job, table)
    output = store_of_job(loaded).url_of("")
    with TemporaryDirectory(prefix="framefleet-") as name:
        folder = Path(name)
        recipes, steps = [find_recipe(loaded.recipe, loaded.folder)], open_steps(loaded)
        for module in map(Path, modules_to_ship(recipes, steps.values())):
            if module.is_dir():
                shutil.copytree(module, folder / module.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(module, folder)
        values = values_elsewhere(loaded)
        file = os.open(folder / _FILE, os.O_WRONLY | os.O_CREAT, 0o600)  # as it stays on other machines
        with open(file, "w", encoding="utf-8") as opened:
            json.dump(values, opened, ensure_ascii=False)
        return submit_files(address, folder, _COMMAND, output=output)


def values_elsewhere(job: Job) -> dict[str, Any]:
    """Return the values of a job, with paths that mean the same in another folder."""
    values = job.model_dump(mode="json", exclude_unset=True)
    absolute_paths(values)
    if job.table is None and job.inputs.base is None:
        values["inputs"] = {**values.get("inputs", {}), "base": os.path.abspath(base_of(job))}
    return values


def logs(
    output: str,
    *,
    address: str | None = None,
    follow: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """Yield what the job printed that was submitted last for an output, in pieces.

    address: as of `submit`. follow: until it ends. storage_options: what fsspec takes. Raises JobError where
    none was submitted, FleetError.
    """
    submission = find_submission(address, Store(output, storage_options).url_of(""))
    return logs_of(submission, follow=follow)
