"""From a job to its recipe and its table, and to how a row becomes a request."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from framefleet.jobs.job.schema import Job
from framefleet.pipeline.errors import JobError, RecipeError
from framefleet.pipeline.model.loras.asked import Lora
from framefleet.pipeline.model.options.step_cache import check_called
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.outputs.parts.records import FAILURE_FIELDS, RECORD_FIELDS, ROW_FIELDS
from framefleet.pipeline.recipes.called import classes_called, spec_for
from framefleet.pipeline.recipes.recipe import Recipe, find_recipe, recipe_of_row
from framefleet.pipeline.recipes.second_model import SecondModel
from framefleet.pipeline.rows.sweeps.sweep import check_sweep, open_sweep
from framefleet.pipeline.rows.sweeps.swept import Swept
from framefleet.pipeline.rows.tables.row_inputs import Finder
from framefleet.pipeline.rows.tables.row_plan import argument_columns, meanings, plan_rows
from framefleet.pipeline.rows.tables.rows import RowPlan
from framefleet.pipeline.rows.tables.source import RowSource
from framefleet.pipeline.rows.tables.table import open_table


def open_recipe(job: Job, spec: PipelineSpec) -> Recipe:
    """Return the job's recipe. Raises UserError where a cache of steps does not go with what it calls."""
    recipe = find_recipe(job.recipe)
    if job.model.options.cache:
        check_called(job.model.options.cache, classes_called(recipe, spec), own=spec.pipeline_class)
    return recipe


def open_rows(
    job: Job,
    spec: PipelineSpec,
    recipes: dict[str, Recipe],
    finder: Finder,
    loras: Mapping[str, Lora],
    second_models: Mapping[str, SecondModel],
    scores: Collection[str] = (),
) -> tuple[RowSource, RowPlan]:
    """Return where rows come from, and how they become requests.

    spec: of the model; the job's recipe may call another pipeline over its components. recipes: holds the
    job's own, and gets those that rows name. scores: columns that records get.
    """
    own = recipes[job.recipe]
    called = spec_for(own, spec)
    _check_scores(scores, meanings(called, own), called.class_name)

    def find(name: str) -> Recipe:
        recipe = recipe_of_row(name, own)
        if recipe.parameters() != own.parameters() or spec_for(recipe, spec).class_name != called.class_name:
            raise RecipeError(
                f"recipe {name!r} takes other arguments than the job's recipe {job.recipe!r}",
                "rows of one table name recipes of equal parameters; render the others as another job",
            )
        recipes[name] = recipe
        return recipe

    table = _open_source(job, called, own)
    plan = plan_rows(
        table.schema,
        called,
        columns=job.columns,
        defaults=job.defaults,
        overrides=job.overrides,
        recipe=own,
        find_recipe=find,
        reserved={*RECORD_FIELDS.names, *FAILURE_FIELDS.names, *ROW_FIELDS.names, *scores},
        finder=finder,
        fps=job.media.fps,
        loras=loras,
        second_models=second_models,
    )
    if isinstance(table, Swept):
        check_sweep(table, plan)
    return table, plan


def _check_scores(scores: Collection[str], arguments: Collection[str], class_name: str) -> None:
    for name in scores:
        if name in arguments:
            raise JobError(
                f"scores: records have a column {name!r} already, which is an argument of {class_name}",
                "give the function another name",
            )


def _open_source(job: Job, called: PipelineSpec, recipe: Recipe) -> RowSource:
    table = None
    if job.table is not None:
        options = job.storage_options if "://" in job.table else {}
        arguments = argument_columns(called, job.columns, recipe)
        table = open_table(job.table, options, arguments=arguments, outage_s=job.retries.store_outage_s)
    if table and not job.sweep:
        return table
    return open_sweep(
        job.sweep,
        table,
        kinds=meanings(called, recipe),
        others=called.parameters,
        columns=job.columns,
        storage_options=job.storage_options,
    )
