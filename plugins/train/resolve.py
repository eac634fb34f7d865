"""Opens and checks what a training's job names: model, table with its videos, output.

Opens no weights. train.json says what a training was started with; a job that would give other weights is
refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

import framefleet
from framefleet.api.clips import Inputs, Request
from framefleet.api.commands import Checked, Watch
from framefleet.api.errors import JobError, count_text
from framefleet.api.jobs import store_of_job
from framefleet.api.models import (
    FRAME_PARAMETERS,
    DType,
    ModelSettings,
    PipelineSpec,
    find_recipe,
    model_digest,
)
from framefleet.api.outputs import CLAIM, Output, Store, read_json
from framefleet.api.texts import did_you_mean, public_url
from framefleet.jobs.job.job_json import Written
from framefleet.jobs.job.model import OpenedModel, open_model
from framefleet.jobs.render.claim import flat, public_location
from framefleet.jobs.render.survey import MAX_SHOWN, Survey, check_valid, reasons
from framefleet.pipeline.errors import UserError
from framefleet.pipeline.model.environment import PACKAGES
from framefleet.pipeline.model.options.tuning import check_options
from framefleet.pipeline.model.sources.source import public_name
from framefleet.pipeline.model.specs.dtypes import check_dtype
from framefleet.pipeline.model.specs.signature import PLACES
from framefleet.pipeline.outputs.layout import INVALID
from framefleet.pipeline.outputs.parts.records import invalid_schema
from framefleet.pipeline.rows.inputs.survey import InputIndex
from framefleet.pipeline.rows.tables.request_checks import checked
from framefleet.pipeline.rows.tables.row_cells import repaired_row
from framefleet.pipeline.rows.tables.row_plan import required_arguments
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.pipeline.rows.tables.table import open_table
from framefleet.plugins.train.checkpoints import TRAIN_CHECKPOINTS, Checkpoints
from framefleet.plugins.train.dataset.batches import TrainingRows, buckets_of
from framefleet.plugins.train.dataset.columns import Columns, column_kinds, plan_columns, table_folder
from framefleet.plugins.train.dataset.survey import survey
from framefleet.plugins.train.denoiser.objective import check_trainable
from framefleet.plugins.train.finish import read_finished
from framefleet.plugins.train.freezing import trained_component
from framefleet.plugins.train.job import TrainJob, TrainSettings
from framefleet.plugins.train.task import Bucket

_CLAIM = "train.json"  # of the output of a job with `train`
# What else a model may be given changes its weights, or keeps them where no gradient reaches.
_OPTIONS = {"attention", "compile", "vae_tiling", "vae_slicing", "allow_unmatched_weights"}
# Those of diffusers' kernels that are known to give gradients; sage gives none, and says nothing.
ATTENTION = ("flash", "flex", "native", "xformers")
ATTENTION_OF_TORCH = "_native_"
SPECIAL = ("seed", "scheduler", "fps")  # of a sample, besides the arguments of the call


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedTraining:
    """A training's job whose parts fit each other."""

    job: TrainJob
    model: ModelSettings
    spec: PipelineSpec
    component: str  # of the pipeline, which is trained
    files: Mapping[str, str]  # what loading the model reads, each with its SHA-256
    digest: str  # of all these files
    columns: Columns
    buckets: tuple[Bucket, ...]
    store: Store
    prepared: Store
    inputs: Inputs
    samples: tuple[Request, ...]


def resolve_training(job: TrainJob, watch: Watch) -> ResolvedTraining:
    """Open what `job` names. Raises UserError for what must change in it, in the table or in the model."""
    if job.model.ip_adapter:
        raise JobError("model.ip_adapter is set, but trainings have no images for it", "leave it out")
    model = open_model(job.model, job.storage_options)
    if model.settings.placement:
        raise JobError("model.placement is only for rendering", "leave it out of a training's job")
    spec = model.spec
    component = trained_component(job.train, spec.components)
    if job.train.part == "denoiser":
        check_trainable(spec.class_name)
    _check_settings(job.train)
    _check_model(job, model, component)
    dtype = model.settings.dtype if job.train.lora else _with_fp32(model.settings.dtype, component)
    options = job.storage_options if "://" in job.table else {}
    table = open_table(job.table, options, arguments=column_kinds(spec, job.columns))
    columns = plan_columns(table, spec, job.train.part, columns=job.columns, defaults=job.defaults)
    buckets = buckets_of(job.train.sizes, spec)
    base = job.inputs.base or table_folder(job.table, table.schema)
    inputs = Inputs(job.inputs.roots, job.storage_options, base=base)
    samples = _samples(job, spec, buckets[0], inputs)
    store = store_of_job(job)
    watch.say(f"reading the files of {model.settings.name}")
    files = model.weights.digests()
    return ResolvedTraining(
        job=job,
        model=replace(model.settings, dtype=dtype),
        spec=spec,
        component=component,
        files=files,
        digest=model_digest(files),
        columns=columns,
        buckets=buckets,
        store=store,
        prepared=store if job.train.prepared is None else store_of_job(job, job.train.prepared),
        inputs=inputs,
        samples=samples,
    )


def _check_settings(settings: TrainSettings) -> None:
    if settings.lora and settings.part != "denoiser":
        raise JobError(f"train.lora is set, but train.part is {settings.part}", "remove one of them")
    if settings.strategy == "fsdp" and settings.part == "autoencoder":
        # Its two halves are called apart, and past their modules: FSDP's hooks would miss them.
        raise JobError(
            "train.strategy is fsdp, but train.part is autoencoder", "leave it out: one fits a GPU with ddp"
        )
    if settings.part == "text_encoder" and settings.batch_size == 1:
        raise JobError(
            "train.part is text_encoder, but train.batch_size is 1",
            "raise it, e.g. to 48: a text is compared with the other rows of its batch",
        )
    if settings.sample_every and not settings.samples:
        raise JobError(
            "train.sample_every is set, but there are no train.samples",
            "add some, e.g. {prompt: ..., seed: ...}",
        )


def _check_model(job: TrainJob, model: OpenedModel, component: str) -> None:
    """Raise UserError for a dtype or an option that the model, or a training of it, cannot have."""
    options = model.settings.options
    check_dtype(model.settings.dtype, model.spec.components)
    if not job.train.lora and (model.settings.parts or component in model.packed):
        key = "base" if job.model.base else "parts"
        method = model.packed.get(component)
        raise JobError(
            f"model.{key} is set, but a whole model is written from one folder"
            if model.settings.parts
            else f"the weights of {component} are packed ({method}), so it cannot be trained",
            "train a LoRA (train.lora), or use a folder of plain weights, such as `framefleet model convert "
            "FILE FOLDER --base BASE` writes",
        )
    if job.train.part == "autoencoder" and (options.vae_slicing or options.vae_tiling):
        raise JobError(
            "train.part is autoencoder, but model.vae_slicing or vae_tiling is set",
            "leave them out; lower train.batch_size or train.sizes if memory is short",
        )
    set_ = [name for name in options.numerics() if name not in _OPTIONS]
    if set_:
        raise JobError(f"model.{set_[0]} is only for rendering", "leave it out of a training's job")
    wanted = options.attention or "native"
    if wanted not in ATTENTION and not wanted.startswith(ATTENTION_OF_TORCH):
        raise JobError(
            f"model.attention: it is not known that {options.attention!r} gives gradients",
            "leave it out for torch's own choice, or use one of "
            f"{', '.join(ATTENTION)}, {ATTENTION_OF_TORCH}...",
        )
    if options.compile and job.train.lora:
        raise JobError("train.lora and model.compile are both set", "remove one of them")
    components, parts = model.weights.components, model.weights.parts
    check_options(model.settings, model.spec, folder=model.configs, components=components, parts=parts)


def _with_fp32(dtype: DType, component: str) -> DType:
    """Return a dtype with the trained component in fp32: small changes are lost in fewer bits."""
    if isinstance(dtype, str):
        return {component: "fp32"} if dtype == "auto" else {"default": dtype, component: "fp32"}
    if dtype.get(component, "fp32") != "fp32":
        raise JobError(
            f"model.dtype.{component} is {dtype[component]}, but trained weights are fp32",
            f"leave it out; `train.precision: {dtype[component]}` computes in it",
        )
    return {**dtype, component: "fp32"}


def _samples(job: TrainJob, spec: PipelineSpec, bucket: Bucket, inputs: Inputs) -> tuple[Request, ...]:
    """Return the samples, checked, of the first bucket's size where they do not say."""
    size = {"height": bucket.height, "width": bucket.width}
    size |= dict.fromkeys(FRAME_PARAMETERS, bucket.num_frames)
    base = {name: value for name, value in size.items() if name in spec.settable()} | job.defaults
    with closing(InputIndex(inputs)) as finder:
        samples = enumerate(job.train.samples)
        return tuple(_sample(number, base | sample, spec, finder) for number, sample in samples)


def _sample(number: int, values: dict[str, Any], spec: PipelineSpec, finder: InputIndex) -> Request:
    settable = spec.settable()
    special = {name: values.pop(name) for name in SPECIAL if name in values and name not in settable}
    for name in values:
        if name not in settable:
            raise JobError(f"train.samples: number {number + 1} has {name!r}", did_you_mean(name, settable))
    recipe = find_recipe("generate")
    needed = required_arguments(spec, recipe)
    if missing := [name for name in needed if name not in values]:
        raise JobError(
            f"train.samples: number {number + 1} has no {missing[0]}",
            f"write {{{', '.join(f'{name}: ...' for name in needed)}, seed: ...}}",
        )
    request = Request(arguments=values, **special)
    try:
        checked(request, spec, recipe, finder=finder)
    except UserError as error:
        raise JobError(f"train.samples: number {number + 1}: {error.problem}", error.fix) from error
    return request  # as it was given: the renderer checks it again, where images are files


def survey_training(resolved: ResolvedTraining, watch: Watch) -> TrainingRows:
    """Return the rows to train on. Raises TableError for others, unless the job leaves them out.

    Those that are left out are in invalid/, and replace those of earlier runs.
    """
    store, table, is_skipping = resolved.store, resolved.columns.table, resolved.job.on_invalid == "skip"
    earlier = store.list(INVALID)
    writer = Output(store).writer(INVALID, invalid_schema(table.schema))
    surveyed = Survey()

    def refused(row: InvalidRow, cells: pa.RecordBatch) -> None:
        surveyed.num_invalid += 1
        if len(surveyed.invalid) < MAX_SHOWN:
            surveyed.invalid.append(row)
        if is_skipping:
            writer.add(repaired_row(cells), reasons(row))
            if writer.due(0.0):
                writer.flush()

    def checked(num_rows: int) -> None:
        watch.show(Checked(num_rows=num_rows))

    columns, buckets, inputs = resolved.columns, resolved.buckets, resolved.inputs
    rows = TrainingRows(survey(columns, buckets, inputs, store=store, refused=refused, checked=checked))
    surveyed.find_places(table)
    surveyed.num_rows = len(rows) + surveyed.num_invalid
    check_valid(surveyed, table, on_invalid=resolved.job.on_invalid, verb="trained on")
    if is_skipping:
        writer.flush()
        store.delete_many(earlier)
    left_out = f", {surveyed.num_invalid:,} left out (see {INVALID}/)" if surveyed.num_invalid else ""
    watch.say(f"{count_text(len(rows), 'row')} to train on{left_out}")
    return rows


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
    """Return what train.json says. Raises FileNotFoundError if there is none, JobError if it is damaged."""
    return read_json(store, _CLAIM, TypeAdapter(TrainingClaim))


def check_output(resolved: ResolvedTraining, *, workers: int | None) -> None:
    """Raise JobError when the output is another's whatever the rows are: the survey would write to it.

    workers: None where it is not known yet how many there will be.
    """
    if resolved.store.exists(CLAIM):
        raise JobError(f"{resolved.store.url_of('')} has clips of a render job", "choose another output")
    _check_same(resolved, _description(resolved, workers))


def claim_training(resolved: ResolvedTraining, rows: TrainingRows, *, workers: int) -> None:
    """Make the output this training's. Raises JobError when it is another's. Call while holding the lock."""
    ours = _description(resolved, workers) | {"rows": {"count": len(rows), "digest": rows.digest()}}
    _check_same(resolved, ours)
    settings, store = resolved.job.train, resolved.store
    last, finished = Checkpoints(store, keep=settings.keep_checkpoints).last(), read_finished(store)
    done = max(last.step if last else 0, finished.steps if finished else 0)
    if done > settings.steps:
        raise JobError(
            f"train.steps is {settings.steps:,}, but {store.url_of('')} is already trained for {done:,}",
            f"raise it to {done} or more, or choose another output",
        )
    resolved.store.write(_CLAIM, (json.dumps(ours, indent=2, ensure_ascii=False) + "\n").encode())


def _check_same(resolved: ResolvedTraining, ours: Mapping[str, Any]) -> None:
    """Raise JobError if the output has a training that differs from `ours` in anything decisive."""
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
            f"{store.url_of('')} has another training\n" + "\n".join(differences),
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
