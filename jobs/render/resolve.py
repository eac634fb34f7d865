"""From a job to a run: model, table, recipes and output, opened and checked. Opens no weights.

What the job file alone decides is checked first, then its models, then where rows come from, and how those of
each model become requests.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import pyarrow as pa

from framefleet.cluster.worker.messages import Rendering
from framefleet.jobs.job.columns import check_late, check_recorded, open_columns
from framefleet.jobs.job.job_json import with_begun_fit
from framefleet.jobs.job.model import OpenedModel, open_models, place_of
from framefleet.jobs.job.output import files_of_others, job_inputs, media_of, store_of_job
from framefleet.jobs.job.schema import Job
from framefleet.jobs.job.steps import check_free, check_steps, open_steps
from framefleet.jobs.show.watch import Watch, wait_for
from framefleet.pipeline.errors import JobError, RecipeError, Refused, TableError, shown
from framefleet.pipeline.guards.mistakes import Mistakes, did_you_mean, naming_model
from framefleet.pipeline.model.model import ModelSettings, ModelUpdate
from framefleet.pipeline.model.options.step_cache import check_called
from framefleet.pipeline.model.registry import numerics_of_code
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.model.specs.check import check_seed
from framefleet.pipeline.model.specs.signature import ArgumentKind
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.outputs.columns import ClipColumn, late_columns, refusals_of
from framefleet.pipeline.outputs.file_step import FileStep, added_columns
from framefleet.pipeline.outputs.frames.result import KeptSteps
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.record_tables import record_schema_of
from framefleet.pipeline.outputs.parts.records import FAILURE_FIELDS, RECORD_FIELDS, ROW_FIELDS, record_schema
from framefleet.pipeline.outputs.parts.seals import live_parts
from framefleet.pipeline.outputs.row_states import added_in
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.recipes.catalog import find_recipe, recipe_of_row
from framefleet.pipeline.recipes.recipe import Recipe, classes_called, spec_for
from framefleet.pipeline.recipes.second_model import SecondModel, open_second_models
from framefleet.pipeline.render.audit.schedule import Audit
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.pipeline.rows.identity import Identity, check_order
from framefleet.pipeline.rows.inputs.fit import fitting_names
from framefleet.pipeline.rows.inputs.survey import InputIndex
from framefleet.pipeline.rows.sweeps.settings import Sweep
from framefleet.pipeline.rows.sweeps.sweep import RowSource, Swept, check_sweep, open_sweep
from framefleet.pipeline.rows.tables.column_checks import as_argument, check_type, of_others
from framefleet.pipeline.rows.tables.other_words import MEANINGS, N, check_n, words_of
from framefleet.pipeline.rows.tables.repeated_table import repeated
from framefleet.pipeline.rows.tables.row_plan import argument_columns, joined_kinds, meanings, plan_rows
from framefleet.pipeline.rows.tables.rows import Finder, KeepCheck, RowPlan
from framefleet.pipeline.rows.tables.table import Table, open_table
from framefleet.pipeline.rows.tables.table_rows import MODEL_COLUMN, ModelRows, TableRows, joined_columns


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedModel(OpenedModel):
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
class ResolvedJob(Rendering):
    """A job whose parts were opened and work together."""

    job: Job
    table: RowSource
    rows: ModelRows  # reads the table's rows
    models: Mapping[str, ResolvedModel]  # by name; a job's only model has none
    recipes: dict[str, Recipe]  # grows as rows name others
    finder: InputIndex
    added: Sequence[str]  # files of rows that had been added when the table was opened

    @property
    def first(self) -> ResolvedModel:
        """The only model, or the first of several."""
        return next(iter(self.models.values()))

    @property
    def argument_names(self) -> set[str]:
        """The arguments that rows get from the job, its table and the model."""
        plans = [model.plan for model in self.models.values()]
        targets = {reader.target for plan in plans for reader in plan.readers}
        return targets.union(*(plan.base for plan in plans))

    def record_columns(self) -> pa.Schema:
        """Return the columns of the job's records, and further ones that the output's records have."""
        carried = self.rows.carried.schema(self.table.schema)
        own = record_schema(carried, self.rows.argument_fields, added_columns(self.steps, self.columns))
        parts = live_parts(self.store)
        there = record_schema_of(self.store, parts) if parts else ()  # scores may have come later
        return pa.schema([*own, *(field for field in there if field.name not in own.names)])

    def close(self) -> None:
        """End the threads that look at what rows name."""
        self.finder.close()


def resolve_job(job: Job, watch: Watch, table: str | None = None, *, is_made: bool = True) -> ResolvedJob:
    """Open what `job` names. Raises UserError if something must change in it, in the table or in the model.

    table: read its rows instead of the job's table and sweep. is_made: framefleet wrote it from such rows.
    """
    steps, plugin_columns = open_steps(job), open_columns(job)
    inputs = job_inputs(job)
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
    wait_for(watch, "opening the table" if job.rows_place else "reading the sweep")
    fit, job = job.inputs.fit, _with_fit(job, opened, recipe, store)
    of_rows = job if table is None else job.with_rows_in(table)
    if table is not None and job.rows_place is None:  # its rows are those of a sweep, with a seed each
        defaults = {name: value for name, value in job.defaults.items() if name != N}
        of_rows = of_rows.model_copy(update={"defaults": defaults})
    recipes, finder, mistakes = {job.recipe: recipe}, InputIndex(inputs), Mistakes()
    added = added_in(store)
    with mistakes.noted():
        source, plans = open_rows(
            of_rows,
            opened,
            recipes,
            finder,
            second_models,
            steps=steps,
            plugin_columns=plugin_columns,
            added=added if table is None else (),
            are_made=is_made and table is not None,
        )
        check_model_column(of_rows, source)
        columns = joined_columns(list(plans.values()))
        check_order(job.order, columns[0].schema(source.schema), columns[1])
    with mistakes.noted():
        media = _media_of(job, opened)
        check_steps(steps, plugin_columns, media)
        check_recorded([column for column in plugin_columns if column.is_late], store)
    mistakes.report()
    if fit != job.inputs.fit and any(plan.fitting for plan in plans.values()):
        watch.say(
            f"note: pictures are stretched to their row's size, as {store.url_of('')} was begun without "
            "`inputs.fit`; in a new output they keep their proportions"
        )
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
    resolved = ResolvedJob(
        job=job,
        models=models,
        recipes=recipes,
        second_models=second_models,
        table=source,
        rows=rows,
        batching=Batching(**job.batching.model_dump()),
        audit=Audit(every=0) if job.engine else job.audit.of_batches,
        media=media,
        store=store,
        inputs=inputs,
        finder=finder,
        added=added,
        steps=steps,
        columns=tuple(plugin_columns),
        keep=_keep_of(job),
        keep_embeddings=job.keep_embeddings,
        checkpoint_every_s=job.retries.checkpoint_every_s,
    )
    if late := late_columns(plugin_columns):
        specs = [plan.spec for plan in plans.values()]
        parameters = [item for spec in specs for item in spec.parameters.items()]
        arguments = {name for name, parameter in parameters if parameter.kind is not None}
        check_late(late, resolved.record_columns(), arguments)
    return resolved


def _with_fit(job: Job, models: Mapping[str, OpenedModel], recipe: Recipe, store: Store) -> Job:
    """Return the job as `with_begun_fit` does. Raises JobError for a `fit` if no model resizes pictures."""
    fit, has_pictures = job.inputs.fit, False
    for name, model in models.items():
        with naming_model(place_of(name)):
            has_pictures |= job.engine is None and bool(fitting_names(spec_for(recipe, model.spec)))
    if fit not in (None, "stretch") and not has_pictures:
        names = " and ".join(dict.fromkeys(model.spec.class_name for model in models.values()))
        problem = f"inputs.fit is {fit!r}, but {names} does not resize pictures to a height and width"
        raise JobError(problem, "leave it out")
    return with_begun_fit(job, store) if has_pictures else job


def _keep_of(job: Job) -> KeptSteps:
    latents = job.keep.latents
    every = latents if isinstance(latents, str) else tuple(latents)
    return KeptSteps(**{**job.keep.model_dump(), "latents": every})


def _keep_check(keep: KeptSteps, spec: PipelineSpec) -> KeepCheck | None:
    if not keep:
        return None
    from framefleet.pipeline.render.scheduler_steps import keep_check  # imports torch

    return keep_check(keep, spec)


def _media_of(job: Job, models: Mapping[str, OpenedModel]) -> Media:
    """Return how clips are stored. Raises JobError if that differs between models."""
    by_name: dict[str, Media] = {}
    for name, model in models.items():
        with naming_model(place_of(name)):
            by_name[name] = media_of(job, model.spec)
    (first, media), *others = by_name.items()
    for name, other in others:
        if other != media:
            raise JobError(
                f"models.{first} makes {media.format} and models.{name} {other.format}, but all clips of an "
                "output have the same format",
                "set `media.format` to one that can hold both, e.g. mkv; or render them in two jobs",
            )
    return media


def open_rows(
    job: Job,
    models: Mapping[str, OpenedModel],
    recipes: dict[str, Recipe],
    finder: Finder,
    second_models: Mapping[str, SecondModel],
    steps: Mapping[str, FileStep],
    plugin_columns: Sequence[ClipColumn] = (),
    added: Collection[str] = (),
    *,
    are_made: bool = False,
) -> tuple[RowSource, dict[str, RowPlan]]:
    """Return where rows come from, and how those of each model become requests.

    The job's recipe may call another pipeline over a model's components. recipes: holds the job's own, and
    gets those that rows name. steps, plugin_columns: what adds columns to records. added: files of rows in
    the job's output. are_made: as for `table_of_job`.
    """
    own = recipes[job.recipe]
    called: dict[str, PipelineSpec] = {}
    for name, model in models.items():
        with naming_model(place_of(name)):
            called[name] = spec_for(own, model.spec)
            check_free(steps, plugin_columns, meanings(called[name], own), called[name].class_name)
    table = table_of_job(job, called.values(), own, added, are_made=are_made)
    ours = {*RECORD_FIELDS.names, *FAILURE_FIELDS.names, *ROW_FIELDS.names}
    ours |= {*added_columns(steps, plugin_columns).names, *refusals_of(plugin_columns)}
    columns = {MODEL_COLUMN}.union(*(meanings(spec, own) for spec in called.values())) if job.models else ()
    plans: dict[str, RowPlan] = {}
    mistakes = Mistakes()
    for name, spec in called.items():
        with mistakes.noted(), naming_model(place_of(name)):
            plans[name] = plan_rows(
                table.schema,
                spec,
                columns=job.columns,
                defaults=job.defaults,
                overrides=job.overrides,
                recipe=own,
                find_recipe=partial(
                    _recipe_of_row, recipes=recipes, own=own, spec=models[name].spec, called=spec
                ),
                reserved=ours,
                finder=finder,
                fps=job.media.fps,
                loras={**models[name].settings.loras, **models[name].misfits},
                second_models=second_models,
                model=name,
                elsewhere=columns,
                check_keep=_keep_check(_keep_of(job), spec),
                file_steps=tuple(steps.values()),
                fit="stretch" if job.engine else job.inputs.fit,
                text_words=table.text_words if isinstance(table, Swept) else (),
                media=media_of(job, spec),
            )
    mistakes.report()
    if isinstance(table, Swept):
        check_sweep(table, plans.values())
    return table, plans


def _recipe_of_row(
    name: str, *, recipes: dict[str, Recipe], own: Recipe, spec: PipelineSpec, called: PipelineSpec
) -> Recipe:
    """Return the recipe that a row names, and add it to `recipes`.

    spec: the spec of the row's model. called: the one of the pipeline that the job's own recipe calls.
    """
    recipe = recipe_of_row(name, own)
    if recipe.parameters() != own.parameters() or spec_for(recipe, spec).class_name != called.class_name:
        raise RecipeError(
            f"recipe {name!r} takes other arguments than the job's recipe {own.name!r}",
            f"set `recipe: {name}` in the job; rows of recipes with other parameters need a job of their own",
        )
    recipes[name] = recipe
    return recipe


def rows_by_model(job: Job, table: RowSource, rows: Mapping[str, TableRows]) -> ModelRows:
    """Return a reader of the table's rows, each with its own model. rows: readers, by model."""
    column, default = check_model_column(job, table)
    return ModelRows(rows, column=column, default=default)


def check_model_column(job: Job, table: RowSource) -> tuple[str | None, str | None]:
    """Return the column that names a row's model, and the model of rows that name none; None for neither.

    Raises UserError if rows have neither, and for a name in the job that no model has.
    """
    if not job.models:
        return None, ""
    fixed: Any = job.overrides.get(MODEL_COLUMN)
    usual: Any = job.defaults.get(MODEL_COLUMN)
    column, names = job.columns.get(MODEL_COLUMN, MODEL_COLUMN), table.schema.names
    swept = table.fixed_values(column) if isinstance(table, Swept) else []
    for section, name in (("overrides", fixed), ("defaults", usual), *(("sweep", value) for value in swept)):
        if name is not None and not (isinstance(name, str) and name in job.models):
            problem = f"{section}.{MODEL_COLUMN} is {shown(name)}, but `models` has no such name"
            raise JobError(problem, did_you_mean(str(name), job.models))
    default = fixed or usual or (next(iter(job.models)) if len(job.models) == 1 else None)
    if column in names and not fixed:
        check_type(table.schema.field(column), MODEL_COLUMN, "str")
        return column, default
    if default is None or (MODEL_COLUMN in job.columns and not fixed):
        raise TableError(
            f"the table has no column {column!r}, but the job has the models {', '.join(job.models)}",
            f"add the column, map it with `columns: {{{MODEL_COLUMN}: ...}}`, set "
            f"`defaults: {{{MODEL_COLUMN}: {next(iter(job.models))}}}`, or render each row with all of them: "
            f"`sweep: {{{MODEL_COLUMN}: [{', '.join(job.models)}]}}`",
        )
    return None, default


def with_added(table: Table, job: Job, paths: Iterable[str]) -> Table:
    """Return the table, followed by the rows of these files of the job's output."""
    options, root = job.storage_options if "://" in job.output else {}, job.output.rstrip("/")
    patient = partial(open_table, outage_s=job.retries.store_outage_s, has_answered=True)
    return table.joined([patient(f"{root}/{path}", options) for path in paths])


def table_of_job(
    job: Job,
    called: Collection[PipelineSpec],
    recipe: Recipe,
    added: Iterable[str],
    *,
    are_made: bool = False,
) -> RowSource:
    """Return the rows of a job's table, with those of files that were added to it; or those of its sweep.

    called: the pipelines that the recipe calls, one for each model. are_made: framefleet wrote the table;
    its rows may be those of the sweep already.
    """
    table = None
    of_models: dict[str, ArgumentKind] = {MODEL_COLUMN: "str"} if job.models else {}
    if (place := job.rows_place) is not None:
        options = job.storage_options if "://" in place else {}
        own = {job.columns.get(name, name): kind for name, kind in of_models.items()}
        arguments = joined_kinds([own, *(argument_columns(spec, job.columns, recipe) for spec in called)])
        outage_s = job.retries.store_outage_s
        table = open_table(place, options, arguments=arguments, outage_s=outage_s, is_made=are_made)
        if (kind := table.media) and kind not in arguments:
            classes = " and ".join(dict.fromkeys(spec.class_name for spec in called))
            raise TableError(
                f"table {table.location} is a folder of {kind}s, but {classes} takes no {kind}",
                f"use a model that starts from one, or map the {kind} to an argument with `columns:`; "
                "to render the prompts that its files say, add --read-metadata",
            )
    swept = {*job.sweep.factors, *(job.sweep.sample.over if job.sweep.sample else ())}
    if (
        are_made
        and table
        and not {job.columns.get(name, name) for name in swept}.isdisjoint(table.schema.names)
    ):
        job = job.model_copy(update={"sweep": Sweep()})
    sweep, kinds = job.sweep, joined_kinds([of_models, *(meanings(spec, recipe) for spec in called)])
    is_used = f"{{{N}}}" in str(sweep) or N in {*job.columns.values()} - job.columns.keys()
    if not is_used and all(N in words_of(spec, recipe) for spec in called):
        table, sweep = _repeated(job, table)
        kinds.pop(N)  # to sweep over the number of clips is to sweep over seeds
    table = table and with_added(table, job, added)
    if table and not sweep:
        return table
    return open_sweep(
        sweep,
        table,
        kinds=kinds,
        others={name for spec in called for name in spec.parameters},
        columns=job.columns,
        storage_options=job.storage_options,
    )


def _repeated(job: Job, table: Table | None) -> tuple[Table | None, Sweep]:
    """Return the table and the sweep with rows of one clip each. Raises UserError."""
    if N in job.overrides:
        problem = f"overrides.{N}: only columns and defaults say how many clips a row has"
        raise JobError(problem, f"set `defaults: {{{N}: ...}}`")
    num = 1 if (written := job.defaults.get(N)) is None else check_n(written)
    if isinstance(num, Refused):
        raise JobError(f"defaults.{N} is {shown(written)}, but {num.reason}", num.fix)
    seed = check_seed(job.defaults.get("seed") or 0)
    first = 0 if isinstance(seed, Refused) else seed  # it is refused later, as a default
    if table is None:
        if num == 1:
            return None, job.sweep
        if "seed" in job.sweep.factors or (job.sweep.sample and "seed" in job.sweep.sample.over):
            raise JobError(f"defaults.{N} and sweep.seed both say which seeds there are", "leave one out")
        values = job.sweep.model_dump(by_alias=True) | {"seed": f"{first}-{first + num - 1}"}
        return None, Sweep.model_validate(values)
    names = {name: job.columns.get(name, name) for name in (N, "seed")}
    if "seed" in job.overrides and (num > 1 or names[N] in table.schema.names):
        problem = f"overrides.seed gives all rows the same seed, but {N} uses the seeds after it too"
        raise JobError(problem, "leave one out")
    return repeated(table, n=names[N], seed=names["seed"], num=num, first_seed=first), job.sweep


def say_of_columns(rows: ModelRows, watch: Watch) -> None:
    """Report columns that do not do what their names suggest."""
    plans = [table_rows.plan for table_rows in rows.by_model.values()]
    for column, argument in dict.fromkeys(pair for plan in plans for pair in plan.lookalikes):
        watch.say(f"note: column {column!r} is carried along; {as_argument(column, argument)}")
    read = {reader.target: reader.column for plan in plans for reader in plan.readers}
    known = {name for plan in plans for name in (*meanings(plan.spec, plan.recipe), *plan.spec.parameters)}
    for word in (word for word in MEANINGS if word in read and word not in plans[0].argument_fields.names):
        watch.say(f"note: column {read[word]!r} {MEANINGS[word]}")
    classes = " and ".join(dict.fromkeys(plan.spec.class_name for plan in plans))
    for column, why in of_others(rows.carried.names, read, known, classes):
        watch.say(f"note: column {column!r} is carried along; {why}")
    for column, name in ((column, name) for column, name in rows.carried.renamed if column != rows.column):
        why = "records have another column with this name (case is ignored)" if column else "it has no name"
        if column == MODEL_COLUMN:  # a job with several models would read it
            why = "it does not choose a model" + ", as the job has no `models`" * ("" in rows.by_model)
        watch.say(f"note: column {column!r} is stored as {name!r}: {why}")
