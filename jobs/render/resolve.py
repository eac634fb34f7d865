"""From a job to a run: model, table, recipes and output, opened and checked. Opens no weights.

What the job file alone decides is checked first, then its models, then the rows of its table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from framefleet.cluster.driver.work import JobRun
from framefleet.jobs.job.model import OpenedModel, open_models, place_of
from framefleet.jobs.job.output import files_of_others, media_of, store_of_job
from framefleet.jobs.job.schema import Job
from framefleet.jobs.job.steps import check_steps, open_steps
from framefleet.jobs.render.row_source import (
    added_in,
    base_of,
    check_model_column,
    open_rows,
    rows_by_model,
    say_of_columns,
)
from framefleet.jobs.show.watch import Watch, wait_for
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.mistakes import Mistakes, naming_model
from framefleet.pipeline.model.model import ModelSettings, ModelUpdate
from framefleet.pipeline.model.options.step_cache import check_called
from framefleet.pipeline.model.registry import numerics_of_code
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.outputs.frames.result import KeptSteps
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.recipes.recipe import Recipe, classes_called, find_recipe
from framefleet.pipeline.recipes.second_model import open_second_models
from framefleet.pipeline.render.audit.schedule import Audit
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.pipeline.rows.identity import Identity, check_order
from framefleet.pipeline.rows.inputs.access import Inputs
from framefleet.pipeline.rows.inputs.survey import InputIndex
from framefleet.pipeline.rows.sweeps.settings import Sweep
from framefleet.pipeline.rows.tables.rows import RowPlan
from framefleet.pipeline.rows.tables.table_rows import TableRows, joined_columns


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedModel(OpenedModel):
    """A model of a run."""

    files: Mapping[str, str]  # what loading it reads, each with its SHA-256
    rows: TableRows  # those that name it
    update: ModelUpdate | None = None  # of its weights since, which the row_ids count

    @property
    def plan(self) -> RowPlan:
        return self.rows.plan

    @property
    def identity(self) -> Identity:
        return self.rows.identity


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedJob(JobRun):
    """A run as those see it who set it up: with its whole job, and its models as they were opened."""

    job: Job
    models: Mapping[str, ResolvedModel]  # by name; a job's only model has none
    recipes: dict[str, Recipe]  # grows as rows name others
    finder: InputIndex

    @property
    def first(self) -> ResolvedModel:
        """The only model, or the first of several."""
        return next(iter(self.models.values()))

    def close(self) -> None:
        """End the threads that look at what rows name."""
        self.finder.close()


def resolve_job(job: Job, watch: Watch, table: str | None = None) -> ResolvedJob:
    """Open what `job` names. Raises UserError for what must change in it, in the table or in the model.

    table: whose rows are read in place of the job's, and of its sweep.
    """
    steps = open_steps(job)
    inputs = Inputs(
        job.inputs.roots, job.storage_options, base=base_of(job), outage_s=job.retries.store_outage_s
    )
    recipe, store = find_recipe(job.recipe, job.folder), store_of_job(job)
    wait_for(watch, "opening the model")
    opened = open_models(job)
    second_models = open_second_models(
        {
            name: ModelSettings(**section.model_dump(), storage_options=job.storage_options)
            for name, section in job.second_models.items()
        }
    )
    for name, model in opened.items():
        if cache := model.settings.options.cache:
            with naming_model(place_of(name)):
                check_called(cache, classes_called(recipe, model.spec), own=model.spec.pipeline_class)
    wait_for(watch, "opening the table")
    of_rows = job if table is None else job.model_copy(update={"table": table, "sweep": Sweep()})
    recipes, finder, mistakes = {job.recipe: recipe}, InputIndex(inputs), Mistakes()
    with mistakes.noted():
        source, plans = open_rows(
            of_rows,
            opened,
            recipes,
            finder,
            second_models,
            steps=steps,
            added=added_in(store) if table is None else (),
        )
        check_model_column(of_rows, source)
        columns = joined_columns(list(plans.values()))
        check_order(job.order, columns[0].schema(source.schema), columns[1])
    with mistakes.noted():
        media = _media_of(job, opened)
        check_steps(steps, media)
    mistakes.report()
    models = {}
    for name, model in opened.items():
        wait_for(watch, f"reading the files of {model.settings.name}")
        files = {**model.weights.digests(), **model.adapter_files}
        numerics = model.settings.numerics(job.batching.mode) | numerics_of_code(model.spec.class_name)
        identity = Identity(model_digest=model_digest(files), numerics=numerics, recipes=recipes)
        parts = {field.name: getattr(model, field.name) for field in fields(model)}
        models[name] = ResolvedModel(**parts, files=files, rows=TableRows(plans[name], identity))
    rows = rows_by_model(of_rows, source, {name: model.rows for name, model in models.items()})
    say_of_columns(rows, watch)
    if others := files_of_others(store, job.table):
        watch.say(f"note: the output {store.url_of('')} holds other files, e.g. {others}")
    latents = job.keep.latents
    return ResolvedJob(
        job=job,
        models=models,
        recipes=recipes,
        second_models=second_models,
        table=source,
        rows=rows,
        batching=Batching(**job.batching.model_dump()),
        audit=Audit(**job.audit.model_dump()),
        media=media,
        store=store,
        inputs=inputs,
        finder=finder,
        steps=steps,
        keep=KeptSteps(
            latents=latents if isinstance(latents, str) else tuple(latents), log_probs=job.keep.log_probs
        ),
        keep_embeddings=job.keep_embeddings,
        checkpoint_every_s=job.retries.checkpoint_every_s,
    )


def _media_of(job: Job, models: Mapping[str, OpenedModel]) -> Media:
    """Return how clips are stored: those of all models alike."""
    by_name: dict[str, Media] = {}
    for name, model in models.items():
        with naming_model(place_of(name)):
            by_name[name] = media_of(job, model.spec)
    (first, media), *others = by_name.items()
    for name, other in others:
        if other != media:
            raise JobError(
                f"models.{first} makes {media.format} and models.{name} {other.format}, and clips of an "
                "output have one format",
                "set `media.format` to one that can hold both, e.g. mkv; or render them in two jobs",
            )
    return media
