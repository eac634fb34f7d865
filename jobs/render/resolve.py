"""From a job to what it names, opened and checked: model, table, recipes, output. Opens no weights."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from framefleet.cluster.driver.ranks import check_order
from framefleet.jobs.job.model import OpenedModel, open_model
from framefleet.jobs.job.output import files_of_others, media_of, store_of_job
from framefleet.jobs.job.schema import Job
from framefleet.jobs.show.watch import Watch, wait_for
from framefleet.pipeline.errors import JobError, RecipeError
from framefleet.pipeline.guards.mistakes import Mistakes
from framefleet.pipeline.model.license import License
from framefleet.pipeline.model.lora import Lora, fetch_lora, loras_of
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.model.options.step_cache import check_called
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.model.sources.weights import Weights
from framefleet.pipeline.model.specs.dtypes import check_dtype
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.model.weight_updates import WeightUpdate
from framefleet.pipeline.outputs.layout import ADDED, TABLES
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.records import FAILURE_FIELDS, RECORD_FIELDS, ROW_FIELDS
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.recipes.recipe import Recipe, classes_called, find_recipe, recipe_of_row, spec_for
from framefleet.pipeline.recipes.second_model import SecondModel, open_second_models
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.pipeline.rows.identity import Identity
from framefleet.pipeline.rows.inputs.access import Inputs
from framefleet.pipeline.rows.inputs.survey import InputIndex
from framefleet.pipeline.rows.sweeps.settings import Sweep
from framefleet.pipeline.rows.sweeps.sweep import check_sweep, open_sweep
from framefleet.pipeline.rows.sweeps.sweep_table import Swept
from framefleet.pipeline.rows.tables.column_checks import as_argument, of_others
from framefleet.pipeline.rows.tables.row_inputs import Finder
from framefleet.pipeline.rows.tables.row_plan import argument_columns, meanings, plan_rows
from framefleet.pipeline.rows.tables.rows import RowPlan
from framefleet.pipeline.rows.tables.table import RowSource, Table, folder_of, open_table
from framefleet.pipeline.rows.tables.table_rows import TableRows
from framefleet.pipeline.scores.score import SIMILARITY, ClipScore, open_scores


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedJob:
    """A job whose parts were found to fit each other.

    files: what loading the model reads, each with its SHA-256. recipes: by name; grows as rows name others.
    updates: of its weights since, which the row_ids count.
    """

    job: Job
    model: ModelSettings
    license: License
    weights: Weights
    spec: PipelineSpec
    files: Mapping[str, str]
    recipes: dict[str, Recipe]
    second_models: Mapping[str, SecondModel]
    table: RowSource
    rows: TableRows
    batching: Batching
    media: Media
    store: Store
    inputs: Inputs
    finder: InputIndex
    scores: tuple[ClipScore, ...]
    updates: tuple[WeightUpdate, ...] = ()

    @property
    def plan(self) -> RowPlan:
        return self.rows.plan

    @property
    def identity(self) -> Identity:
        return self.rows.identity

    def close(self) -> None:
        """End the threads that look at what rows name."""
        self.finder.close()


def base_of(job: Job) -> str:
    """Return where paths that rows name start from."""
    if job.inputs.base is not None:
        return job.inputs.base
    return os.getcwd() if job.table is None else folder_of(job.table)


def resolve_job(job: Job, watch: Watch, table: str | None = None) -> ResolvedJob:
    """Open what `job` names. Raises UserError for what must change in it, in the table or in the model.

    table: whose rows are read in place of the job's, and of its sweep.
    """
    wait_for(watch, "opening the model")
    model = open_model(job)
    check_model(job, model)
    loras = open_loras(job, model)
    second_models = second_models_of(job)
    recipes = {job.recipe: open_recipe(job, model.spec)}
    scores = scores_of(job)
    inputs = Inputs(
        job.inputs.roots, job.storage_options, base=base_of(job), outage_s=job.retries.store_outage_s
    )
    finder = InputIndex(inputs)
    wait_for(watch, "opening the table")
    of_rows = job if table is None else job.model_copy(update={"table": table, "sweep": Sweep()})
    mistakes = Mistakes()
    with mistakes.noted():
        opened, plan = open_rows(
            of_rows,
            model.spec,
            recipes,
            finder,
            loras,
            second_models,
            scores=[score.name for score in scores],
            added=added_in(store_of_job(job)) if table is None else (),
        )
        check_order(job.order, plan.carried.schema(opened.schema), plan.argument_fields)
    with mistakes.noted():
        store, media = store_of_job(job), media_of(job, model.spec)
    mistakes.report()
    for column, argument in plan.lookalikes:
        watch.say(f"note: column {column!r} is carried along; {as_argument(column, argument)}")
    for column in of_others(plan.carried.names, plan.spec):
        watch.say(f"note: column {column!r} is carried along; {plan.spec.class_name} takes no {column}")
    for column, name in plan.carried.renamed:
        watch.say(f"note: column {column!r} is stored as {name!r}: records have their own {column!r}")
    if others := files_of_others(store, job.table):
        watch.say(f"note: the output {store.url_of('')} holds other files, e.g. {others}")
    wait_for(watch, f"reading the files of {model.settings.name}")
    files = {**model.weights.digests(), **model.adapter_files}
    batching = Batching(**job.batching.model_dump())
    numerics = model.settings.numerics(batching.mode)
    identity = Identity(model_digest=model_digest(files), numerics=numerics, recipes=recipes)
    return ResolvedJob(
        job=job,
        model=replace(model.settings, loras=loras),
        license=model.license,
        weights=model.weights,
        spec=model.spec,
        files=files,
        recipes=recipes,
        second_models=second_models,
        table=opened,
        rows=TableRows(plan, identity),
        batching=batching,
        media=media,
        store=store,
        inputs=inputs,
        finder=finder,
        scores=scores,
    )


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
    added: Iterable[str] = (),
) -> tuple[RowSource, RowPlan]:
    """Return where rows come from, and how they become requests.

    spec: of the model; the job's recipe may call another pipeline over its components. recipes: holds the
    job's own, and gets those that rows name. scores: columns that records get. added: files of the output
    with rows that come after the table's.
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

    table = table_of_job(job, called, own, added)
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


def added_in(store: Store) -> list[str]:
    """Return the files of rows that were added to an output's table, the oldest first."""
    return sorted(path for path in store.list(TABLES) if path.startswith(f"{TABLES}/{ADDED}"))


def with_added(table: Table, job: Job, paths: Iterable[str]) -> Table:
    """Return the table with the rows of these files of the job's output after its own."""
    options, root = job.storage_options if "://" in job.output else {}, job.output.rstrip("/")
    return table.joined([open_table(f"{root}/{path}", options) for path in paths])


def table_of_job(job: Job, called: PipelineSpec, recipe: Recipe, added: Iterable[str]) -> RowSource:
    """Return the rows of a job's table, with those of files that were added to it; or those of its sweep."""
    table = None
    if job.table is not None:
        options = job.storage_options if "://" in job.table else {}
        arguments = argument_columns(called, job.columns, recipe)
        table = open_table(job.table, options, arguments=arguments, outage_s=job.retries.store_outage_s)
        table = with_added(table, job, added)
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


def check_model(job: Job, model: OpenedModel) -> None:
    """Raise UserError for a dtype or an option that the model does not have."""
    check_dtype(model.settings.dtype, model.spec.components)
    if job.model.options == Options():
        return
    from framefleet.pipeline.model.options.checks import check_options  # imports torch

    check_options(
        model.settings.options,
        model.spec,
        folder=model.configs,
        components=model.weights.components,
        device="cpu" if _is_on_cpu(job) else None,
    )


def _is_on_cpu(job: Job) -> bool:
    """Return whether no worker can have a GPU; those of a cluster may, where this machine has none."""
    if job.model.device != "auto" or job.fleet.address is not None:
        return job.model.device == "cpu"
    import torch

    return not torch.cuda.is_available()


def open_loras(job: Job, model: OpenedModel) -> dict[str, Lora]:
    """Return the job's LoRAs as other machines find them too. They are read here: they must fit the model."""
    given = loras_of({name: lora.model_dump() for name, lora in job.loras.items()})
    files = {name: fetch_lora(name, lora, job.storage_options) for name, lora in given.items()}
    if files:
        from framefleet.pipeline.model.lora_loading import check_loras_fit

        check_loras_fit(files, model.weights, model.spec)
    return {name: file.lora for name, file in files.items()}


def second_models_of(job: Job) -> dict[str, SecondModel]:
    """Return the job's second models as other machines find them too."""
    options = job.storage_options
    given = {
        name: ModelSettings(**section.model_dump(), storage_options=options)
        for name, section in job.second_models.items()
    }
    return open_second_models(given)


def names_of(job: Job) -> list[str]:
    """Return the columns of the job's scores, without opening them."""
    names = [score if isinstance(score, str) else SIMILARITY for score in job.scores]
    return [name.rpartition(":")[2] for name in names]


def scores_of(job: Job) -> tuple[ClipScore, ...]:
    """Return the job's scores. Raises UserError for what is none, or has the name of another column."""
    names = [score for score in job.scores if isinstance(score, str)]
    folders = [score.similarity for score in job.scores if not isinstance(score, str)]
    if len(folders) > 1:
        raise JobError("scores: there are two CLIP models", "remove one")
    reserved = {*RECORD_FIELDS.names, *FAILURE_FIELDS.names}
    return tuple(open_scores(names, folders[0] if folders else None, reserved=reserved))
