"""train.json: what a training was begun with. A job that would come to other weights is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from pydantic import TypeAdapter

import framefleet
from framefleet.jobs.job.job_json import Written
from framefleet.jobs.render.claim import flat, public_location
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.redaction import public_url
from framefleet.pipeline.model.environment import PACKAGES
from framefleet.pipeline.model.sources.source import public_name
from framefleet.pipeline.model.specs.signature import PLACES
from framefleet.pipeline.outputs.layout import CLAIM, TRAINING
from framefleet.pipeline.outputs.stores.store import Store, read_json
from framefleet.plugins.train.checkpoints import TRAIN_CHECKPOINTS, Checkpoints
from framefleet.plugins.train.dataset.batches import TrainingRows
from framefleet.plugins.train.finish import read_finished
from framefleet.plugins.train.resolve import ResolvedTraining

_DECISIVE = ("numerics", "workers", "rows", "model_digest")  # and `train:`, but for what is in FREE
# Of `train:`, what may change from run to run without changing the weights.
FREE = {
    "gradient_checkpointing",
    "prepared",
    "checkpoint_every",
    "keep_checkpoints",
    "sample_every",
    "samples",
}


class ClaimedSettings(Written):
    schedule: str
    steps: int


class ClaimedTrainJob(Written):
    train: ClaimedSettings


class TrainingClaim(Written):
    job: ClaimedTrainJob


def read_training_claim(store: Store) -> TrainingClaim:
    """Return what train.json says; FileNotFoundError where there is none, JobError where it is damaged."""
    return read_json(store, TRAINING, TypeAdapter(TrainingClaim))


def check_output(resolved: ResolvedTraining, *, workers: int | None) -> None:
    """Raise JobError when the output is another's whatever the rows are: the survey would write to it.

    workers: None where it is not known yet how many there will be.
    """
    if resolved.store.exists(CLAIM):
        raise JobError(f"{resolved.store.url_of('')} holds clips of a render job", "choose another output")
    _check_same(resolved, _description(resolved, workers))


def claim_training(resolved: ResolvedTraining, rows: TrainingRows, *, workers: int) -> None:
    """Make the output this training's. Raises JobError when it is another's. Call while holding the lock."""
    ours = _description(resolved, workers) | {"rows": {"count": len(rows), "digest": rows.digest()}}
    _check_same(resolved, ours)
    settings, store = resolved.job.train, resolved.store
    last = Checkpoints(store, keep=settings.keep_checkpoints).last()
    if last is not None and last.step > settings.steps:
        raise JobError(
            f"train.steps is {settings.steps:,}, and {store.url_of('')} is trained for {last.step:,} already",
            f"raise it to {last.step} or more, or choose another output",
        )
    resolved.store.write(TRAINING, (json.dumps(ours, indent=2, ensure_ascii=False) + "\n").encode())


def _check_same(resolved: ResolvedTraining, ours: Mapping[str, Any]) -> None:
    """Raise JobError when the output holds a training that differs from `ours` in anything decisive."""
    store = resolved.store
    try:
        theirs = read_training_claim(store).model_dump()
    except FileNotFoundError:
        return
    keys = [key for key in _DECISIVE if ours.get(key) is not None]
    then, now = _decisive(theirs, keys), _decisive(ours, keys)
    differences = [
        f"  {key}: {then.get(key, 'unset')} there, {now.get(key, 'unset')} here"
        for key in sorted({*then, *now})
        if then.get(key, "unset") != now.get(key, "unset")
    ]
    if differences and (store.list(TRAIN_CHECKPOINTS) or read_finished(store)):
        raise JobError(
            f"{store.url_of('')} holds another training\n" + "\n".join(differences),
            "undo these changes, or choose another output. checkpoint_every, keep_checkpoints, sample_every, "
            "samples, prepared, gradient_checkpointing, on_invalid and paths of files may change",
        )


def _description(resolved: ResolvedTraining, workers: int | None) -> dict[str, Any]:
    """Return the job with every value that it left open, and without secrets."""
    job, model = resolved.job.model_dump(exclude={"storage_options"}), resolved.model
    job["table"] = public_location(resolved.job.table)
    job["output"] = resolved.store.url_of("")
    settable = resolved.spec.settable()
    inputs = {name for name, parameter in settable.items() if parameter.kind in PLACES}
    job["train"]["samples"] = [  # of an image or a video its URL without what may be secret
        {name: public_url(value) if name in inputs else value for name, value in sample.items()}
        for sample in job["train"]["samples"]
    ]
    job["train"]["prepared"] = resolved.prepared.url_of("")
    job["inputs"]["roots"] = [public_url(root) for root in job["inputs"]["roots"]]
    job["model"] |= {"path": public_name(model.path, None), "revision": model.revision}
    return {
        "framefleet": framefleet.__version__,
        "versions": {package: metadata.version(package) for package in ("torch", *PACKAGES)},
        "job": job,
        "pipeline": resolved.spec.class_name,
        "numerics": {"dtype": model.dtype, "threads": model.threads, **model.options.numerics()},
        "workers": workers,
        "model_digest": resolved.digest,
        "model_files": dict(resolved.files),
    }


def _decisive(description: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    train = {key: value for key, value in description["job"]["train"].items() if key not in FREE}
    if train["schedule"] == "constant":
        del train["steps"]
    return dict(flat("", {"train": train, **{key: description.get(key) for key in keys}}))
