"""From a training's job to what it names, opened and checked: model, table with its videos, output.

Opens no weights.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from framefleet.jobs.job.model import OpenedModel, open_model
from framefleet.jobs.job.output import store_of_job
from framefleet.jobs.render.survey import MAX_SHOWN, Survey, check_valid, reasons
from framefleet.jobs.show.watch import Checked, Watch
from framefleet.pipeline.errors import JobError, UserError
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.model.options.tuning import check_options
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.model.specs.dtypes import DType, check_dtype
from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.outputs.layout import INVALID
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import invalid_schema
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.recipes.recipe import find_recipe
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.inputs.access import Inputs
from framefleet.pipeline.rows.inputs.survey import InputIndex
from framefleet.pipeline.rows.tables.request_checks import checked
from framefleet.pipeline.rows.tables.row_cells import repaired_row
from framefleet.pipeline.rows.tables.row_plan import required_arguments
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.pipeline.rows.tables.table import open_table
from framefleet.plugins.train.dataset.batches import TrainingRows, buckets_of
from framefleet.plugins.train.dataset.columns import Columns, column_kinds, plan_columns, table_folder
from framefleet.plugins.train.dataset.survey import survey
from framefleet.plugins.train.denoiser.objective import check_trainable
from framefleet.plugins.train.freezing import trained_component
from framefleet.plugins.train.job import TrainJob, TrainSettings
from framefleet.plugins.train.task import Bucket

# What else a model may be given changes its weights, or keeps them where no gradient reaches.
_OPTIONS = {"attention", "compile", "vae_tiling", "vae_slicing", "allow_unmatched_weights"}
# Those of diffusers' kernels that are known to give gradients; sage gives none, and says nothing.
ATTENTION = ("flash", "flex", "native", "xformers")
ATTENTION_OF_TORCH = "_native_"
SPECIAL = ("seed", "scheduler", "fps")  # of a sample, besides the arguments of the call


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedTraining:
    """A training's job whose parts were found to fit each other."""

    job: TrainJob
    model: ModelSettings
    spec: PipelineSpec
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
        raise JobError("model.ip_adapter is set, and trainings have no images for it", "leave it out")
    model = open_model(job.model, job.storage_options)
    if model.settings.placement:
        raise JobError("model.placement is set, which is for rendering", "leave it out of a training's job")
    spec = model.spec
    component = trained_component(job.train, spec.components)
    if job.train.part == "denoiser":
        check_trainable(spec.class_name)
    _check_settings(job.train)
    _check_model(job, model)
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
        raise JobError(f"train.lora is set, and train.part is {settings.part}", "leave one of them out")
    if settings.strategy == "fsdp" and settings.part == "autoencoder":
        # Its two halves are called apart, and past their modules: FSDP's hooks would miss them.
        raise JobError(
            "train.strategy is fsdp, and train.part is autoencoder", "leave it out: one fits a GPU with ddp"
        )
    if settings.part == "text_encoder" and settings.batch_size == 1:
        raise JobError(
            "train.part is text_encoder, and train.batch_size is 1",
            "raise it, to 48 or so: a text is compared with the other rows of its batch",
        )
    if settings.sample_every and not settings.samples:
        raise JobError(
            "train.sample_every is set, and there are no train.samples",
            "add some, e.g. {prompt: ..., seed: ...}",
        )


def _check_model(job: TrainJob, model: OpenedModel) -> None:
    """Raise UserError for a dtype or an option that the model, or a training of it, cannot have."""
    options = model.settings.options
    check_dtype(model.settings.dtype, model.spec.components)
    if job.train.part == "autoencoder" and (options.vae_slicing or options.vae_tiling):
        raise JobError(
            "train.part is autoencoder, and model.vae_slicing or vae_tiling is set",
            "leave them out, and lower train.batch_size or train.sizes where memory is short",
        )
    set_ = [name for name in options.numerics() if name not in _OPTIONS]
    if set_:
        raise JobError(f"model.{set_[0]} is set, which is for rendering", "leave it out of a training's job")
    wanted = options.attention or "native"
    if wanted not in ATTENTION and not wanted.startswith(ATTENTION_OF_TORCH):
        raise JobError(
            f"model.attention: it is not known that {options.attention!r} gives gradients",
            "leave it out for torch's own choice, or use one of "
            f"{', '.join(ATTENTION)}, {ATTENTION_OF_TORCH}...",
        )
    if options.compile and job.train.lora:
        raise JobError("train.lora is set, and model.compile is too", "leave one of them out")
    check_options(options, model.spec, folder=model.configs, components=model.weights.components, device=None)


def _with_fp32(dtype: DType, component: str) -> DType:
    """Return a dtype with the trained component in fp32: small changes are lost in fewer bits."""
    if isinstance(dtype, str):
        return {component: "fp32"} if dtype == "auto" else {"default": dtype, component: "fp32"}
    if dtype.get(component, "fp32") != "fp32":
        raise JobError(
            f"model.dtype.{component} is {dtype[component]}, and weights that are trained are fp32",
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

    Those that are left out are in invalid/, in place of those of earlier runs.
    """
    store, table, is_skipping = resolved.store, resolved.columns.table, resolved.job.on_invalid == "skip"
    earlier = store.list(INVALID)
    writer = PartWriter(store, INVALID, invalid_schema(table.schema), run=uuid.uuid4().hex)
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
    rows = survey(columns, buckets, inputs, store=store, refused=refused, checked=checked)
    surveyed.find_places(table)
    surveyed.num_rows = len(rows) + surveyed.num_invalid
    check_valid(surveyed, table, on_invalid=resolved.job.on_invalid, verb="trained on")
    if is_skipping:
        writer.flush()
        store.delete_many(earlier)
    left_out = f", {surveyed.num_invalid:,} left out (see {INVALID}/)" if surveyed.num_invalid else ""
    watch.say(f"{len(rows):,} rows to train on{left_out}")
    return rows
