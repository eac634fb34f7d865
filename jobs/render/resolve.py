"""From a job to what it names, opened and checked: model, table, recipes, output. Opens no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from framefleet.jobs.job.schema import Job, TableJob
from framefleet.jobs.show.watch import Watch
from framefleet.pipeline.errors import JobError, RecipeError
from framefleet.pipeline.model.loras.asked import Lora, loras_of
from framefleet.pipeline.model.loras.files import fetch_lora
from framefleet.pipeline.model.model import source_of, weights_of
from framefleet.pipeline.model.options.checks import check_options
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.options.step_cache import check_called
from framefleet.pipeline.model.settings import ModelSettings
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.model.sources.weights import Weights
from framefleet.pipeline.model.specs.dtypes import check_dtype
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.outputs.media_settings import Media
from framefleet.pipeline.outputs.records import FAILURE_FIELDS, RECORD_FIELDS
from framefleet.pipeline.outputs.store import Store
from framefleet.pipeline.recipes.called import classes_called, spec_for
from framefleet.pipeline.recipes.recipe import Recipe, find_recipe, recipe_of_row
from framefleet.pipeline.recipes.second_model import SecondModel, open_second_models
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.pipeline.rows.identity import Identity
from framefleet.pipeline.rows.inputs.access import Inputs
from framefleet.pipeline.rows.inputs.survey import InputIndex
from framefleet.pipeline.rows.tables.row_inputs import Finder
from framefleet.pipeline.rows.tables.row_plan import argument_columns, plan_rows
from framefleet.pipeline.rows.tables.rows import RowPlan
from framefleet.pipeline.rows.tables.table import Table, folder_of, open_table


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedJob:
    """A job whose parts were found to fit each other.

    files: what loading the model reads, each with its SHA-256. recipes: by name; grows as rows name others.
    """

    job: Job
    model: ModelSettings
    spec: PipelineSpec
    files: Mapping[str, str]
    identity: Identity
    recipes: dict[str, Recipe]
    second_models: Mapping[str, SecondModel]
    table: Table
    plan: RowPlan
    batching: Batching
    media: Media
    store: Store
    inputs: Inputs
    finder: InputIndex

    def close(self) -> None:
        """End the threads that look at what rows name."""
        self.finder.close()


def resolve_job(job: Job, watch: Watch) -> ResolvedJob:
    """Open what `job` names. Raises UserError for what must change in it, in the table or in the model."""
    model, weights = open_model(job)
    configs = weights.configs()
    spec = inspect_model(configs)
    check_dtype(model.dtype, spec.components)
    device = "cpu" if _is_on_cpu(job) else None
    check_options(
        model.options,
        spec,
        folder=configs,
        components=weights.components,
        device=device,
        has_loras=bool(job.loras),
    )
    loras = _open_loras(job, spec, weights)
    second_models = _open_second_models(job)
    recipes = {job.recipe: find_recipe(job.recipe)}
    if cache := model.options.cache:
        classes = classes_called(recipes[job.recipe], spec)
        check_called(cache, classes, own=spec.pipeline_class)
    inputs = Inputs(job.inputs.roots, job.storage_options, base=folder_of(job.table))
    finder = InputIndex(inputs)
    table, plan = _open_table(job, spec, recipes, finder, loras, second_models)
    for column, argument in plan.lookalikes:
        watch.say(f"note: column {column!r} is carried along; did you mean the argument {argument!r}?")
    store = open_output(job)
    media_format = job.media.format or ("png" if spec.kind == "image" else "mp4")
    media = Media(format=media_format, crf=job.media.crf, fps=job.media.fps)
    if media.format == "png" and spec.kind == "video":
        raise JobError(f"media.format is png, but {spec.class_name} renders videos", "use mp4 or mkv")
    watch.say(f"reading the files of {model.name}")
    files = weights.digests()
    batching = Batching(**job.batching.model_dump())
    numerics = model.numerics(batching.mode)
    return ResolvedJob(
        job=job,
        model=replace(model, loras=loras),
        spec=spec,
        files=files,
        identity=Identity(model_digest=model_digest(files), numerics=numerics, recipes=recipes),
        recipes=recipes,
        second_models=second_models,
        table=table,
        plan=plan,
        batching=batching,
        media=media,
        store=store,
        inputs=inputs,
        finder=finder,
    )


def open_model(job: TableJob) -> tuple[ModelSettings, Weights]:
    """Return the job's model, opened, as other machines find it too: by absolute path, or by commit."""
    given = ModelSettings(
        **job.model.model_dump(exclude=set(Options.model_fields)),
        options=job.model.options,
        storage_options=job.storage_options,
    )
    source = source_of(given)
    weights = weights_of(given, source)
    return replace(given, path=source.path, revision=source.revision), weights


def open_output(job: TableJob, place: str | None = None) -> Store:
    """Return the job's output, or another place that it writes to: one that other processes see too."""
    place = job.output if place is None else place
    if place.startswith("memory://"):
        raise JobError(f"{place} is what each process has for itself", "use a folder or S3")
    return Store(place, job.storage_options)


def _is_on_cpu(job: Job) -> bool:
    """Tell whether no worker can have a GPU; those of a cluster may, where this machine has none."""
    if job.model.device != "auto" or job.fleet.address is not None:
        return job.model.device == "cpu"
    return not torch.cuda.is_available()


def _open_loras(job: Job, spec: PipelineSpec, weights: Weights) -> dict[str, Lora]:
    """Return the job's LoRAs as other machines find them too. They are read here: they must fit the model."""
    given = loras_of({name: lora.model_dump() for name, lora in job.loras.items()})
    files = {name: fetch_lora(name, lora, job.storage_options) for name, lora in given.items()}
    if files:
        from framefleet.pipeline.model.loras.loading import check_loras_fit

        check_loras_fit(files, weights, spec)
    return {name: file.lora for name, file in files.items()}


def _open_second_models(job: Job) -> dict[str, SecondModel]:
    """Return the job's second models as other machines find them too."""
    options = job.storage_options
    given = {
        name: ModelSettings(**section.model_dump(), storage_options=options)
        for name, section in job.second_models.items()
    }
    return open_second_models(given)


def _open_table(
    job: Job,
    spec: PipelineSpec,
    recipes: dict[str, Recipe],
    finder: Finder,
    loras: Mapping[str, Lora],
    second_models: Mapping[str, SecondModel],
) -> tuple[Table, RowPlan]:
    """spec: of the model; the job's recipe may call another pipeline over its components."""
    own = recipes[job.recipe]
    called = spec_for(own, spec)

    def find(name: str) -> Recipe:
        recipe = recipe_of_row(name, own)
        if recipe.parameters() != own.parameters() or spec_for(recipe, spec).class_name != called.class_name:
            raise RecipeError(
                f"recipe {name!r} takes other arguments than the job's recipe {job.recipe!r}",
                "rows of one table name recipes of equal parameters; render the others as another job",
            )
        recipes[name] = recipe
        return recipe

    options = job.storage_options if "://" in job.table else {}
    table = open_table(job.table, options, arguments=argument_columns(called, job.columns, own))
    plan = plan_rows(
        table.schema,
        called,
        columns=job.columns,
        defaults=job.defaults,
        recipe=own,
        find_recipe=find,
        reserved={*RECORD_FIELDS.names, *FAILURE_FIELDS.names},
        finder=finder,
        fps=job.media.fps,
        loras=loras,
        second_models=second_models,
    )
    return table, plan
