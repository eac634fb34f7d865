"""From a job to what it names, opened and checked: model, table, recipes, output. Opens no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from framefleet.jobs.job.opened import open_model, open_output
from framefleet.jobs.job.schema import Job
from framefleet.jobs.render.model import check_model, open_loras, open_others
from framefleet.jobs.show.watch import Watch
from framefleet.pipeline.errors import JobError, RecipeError
from framefleet.pipeline.model.loras.asked import Lora
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.model.options.step_cache import check_called
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.outputs.media import Media
from framefleet.pipeline.outputs.records import FAILURE_FIELDS, RECORD_FIELDS
from framefleet.pipeline.outputs.store import Store
from framefleet.pipeline.recipes.called import classes_called, spec_for
from framefleet.pipeline.recipes.recipe import Recipe, find_recipe, recipe_of_row
from framefleet.pipeline.recipes.second_model import SecondModel
from framefleet.pipeline.render.fused.forwards import Batching
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.identity import row_id
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
    digest: str
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

    @property
    def numerics(self) -> dict[str, Any]:
        return self.model.numerics(self.batching.mode)

    def identity(self, request: Request) -> str:
        """Return the row_id of a checked request."""
        digest = self.recipes[request.recipe].digest
        return row_id(request, model_digest=self.digest, numerics=self.numerics, recipe_digest=digest)


def resolve_job(job: Job, watch: Watch) -> ResolvedJob:
    """Open what `job` names. Raises UserError for what must change in it, in the table or in the model."""
    model = open_model(job)
    check_model(job, model)
    loras = open_loras(job, model)
    second_models = open_others(job)
    recipes = {job.recipe: _open_recipe(job, model.spec)}
    inputs = Inputs(job.inputs.roots, job.storage_options, base=folder_of(job.table))
    finder = InputIndex(inputs)
    table, plan = _open_table(job, model.spec, recipes, finder, loras, second_models)
    for column, argument in plan.lookalikes:
        watch.say(f"note: column {column!r} is carried along; did you mean the argument {argument!r}?")
    store, media = open_output(job), _media(job, model.spec)
    watch.say(f"reading the files of {model.settings.name}")
    files = model.weights.digests()
    return ResolvedJob(
        job=job,
        model=replace(model.settings, loras=loras),
        spec=model.spec,
        files=files,
        digest=model_digest(files),
        recipes=recipes,
        second_models=second_models,
        table=table,
        plan=plan,
        batching=Batching(**job.batching.model_dump()),
        media=media,
        store=store,
        inputs=inputs,
        finder=finder,
    )


def _open_recipe(job: Job, spec: PipelineSpec) -> Recipe:
    """Return the job's recipe. Raises UserError where a cache of steps does not go with what it calls."""
    recipe = find_recipe(job.recipe)
    if job.model.options.cache:
        check_called(job.model.options.cache, classes_called(recipe, spec), own=spec.pipeline_class)
    return recipe


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


def _media(job: Job, spec: PipelineSpec) -> Media:
    """Return how clips are stored. Raises JobError for a format that does not hold them."""
    format = job.media.format or ("png" if spec.kind == "image" else "mp4")
    if format == "png" and spec.kind == "video":
        raise JobError(f"media.format is png, but {spec.class_name} renders videos", "use mp4 or mkv")
    return Media(format=format, crf=job.media.crf, fps=job.media.fps)
