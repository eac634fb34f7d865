"""A fleet that stays between calls: it renders rows, returns their records, and can update its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.api import Scope
from framefleet.api.commands import Callback
from framefleet.api.errors import JobError, ModelError
from framefleet.api.jobs import Job, Progress, Summary, runners_of
from framefleet.api.models import model_digest
from framefleet.api.outputs import DriverLock, Output
from framefleet.api.texts import did_you_mean
from framefleet.cluster.driver.earlier_runs import finish_taking_back
from framefleet.cluster.fleet.start import Start, as_joined, check_own_ray
from framefleet.jobs.job.file import check_gpu
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.python_table import stored_rows
from framefleet.jobs.render.render import render_pending
from framefleet.jobs.render.resolve import ResolvedJob, open_rows, resolve_job, rows_by_model
from framefleet.jobs.render.row_parts import write_rows
from framefleet.jobs.render.survey import check_valid, mark_done, survey_rows
from framefleet.pipeline.outputs.layout import WEIGHTS
from framefleet.pipeline.plugin import plugins
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.pipeline.rows.tables.table_rows import TableRows
from framefleet.plugins.rollouts import weight_updates


class WarmFleet:
    """The workers of a job, as a context; they start with the first rows, and end with the context.

    summary: how the last call of `render` ended; None before it. Not for several threads at once.
    """

    def __init__(
        self,
        job: Job | str | Path | Mapping[str, Any],
        *,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._job, self._watch = job, Callback(on_progress)
        self._stack = ExitStack()
        self._resolved: ResolvedJob | None = None
        # Of the weights of models, by name.
        self._updates: dict[str, tuple[weight_updates.WeightUpdate, ...]] = {}
        self.summary: Summary | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stack.__exit__(*raised)

    @property
    def output(self) -> Output:
        """What has been rendered so far, with `frames` and `extras` of each record."""
        return Output(self._begun.store)

    def render(self, rows: object) -> pa.Table:
        """Render rows; return their records, in their order, without those of rows that failed.

        rows: as `framefleet.render` takes them. A row that was rendered before, with the same weights, is not
        rendered again. Raises as `framefleet.render` does.
        """
        with closing(RowIndex()) as index:
            with stored_rows(self._job, rows) as job:
                resolved = self._begin(job) if self._resolved is None else _with_rows(self._resolved, job)
                self._resolved = resolved
                survey = survey_rows(resolved, index, self._watch)
                check_valid(survey, resolved.table, on_invalid=job.on_invalid, verb="rendered")
            finish_taking_back(resolved.store, index, self._lock)
            mark_done(resolved, index, self._watch)
            write_rows(resolved, index, self._lock)
            row_ids = [row_id for _, row_id in index.row_ids_in(0, survey.num_rows)]
            index.leave_only(row_ids)  # of the output's: what earlier calls left half-done stays
            are_new = index.counts().done == 0
            earlier = Output(resolved.store).now()
            self._lock.tell_more()
            self.summary = render_pending(
                resolved,
                survey,
                index,
                self._lock,
                self._watch,
                self._start,
                Scope(only=row_ids, stays=lambda: True),
            )
        store = self._begun.store
        in_use = {path for updates in self._updates.values() for update in updates for path in update.files}
        store.delete_many(path for path in store.list(WEIGHTS) if path not in in_use)
        wanted = pa.array(row_ids, pa.string())
        # An output of many calls has many parts. With other weights, all rows are in the last ones.
        output = Output(store).since(earlier) if are_new else Output(store)
        tables = [table.filter(pc.is_in(table["row_id"], wanted)) for table in output.records()]
        if not tables:
            return Output(store).schema().empty_table()
        records = pa.concat_tables(tables)
        places = {row_id: place for place, row_id in enumerate(records["row_id"].to_pylist())}
        return records.take([places[row_id] for row_id in row_ids if row_id in places])

    def update(self, weights: Mapping[str, Mapping[str, Any] | str | Path], *, model: str = "") -> str:
        """Give all workers other weights, where they are; return the model's new digest.

        weights: by denoiser, e.g. transformer, its state dict, a .safetensors file or a folder of such files.
        model: the name of one of the job's `models`.
        Rows that are rendered from now on have that digest, and so other row_ids. Raises ModelError for
        weights that do not fit; then all workers keep their current ones.
        """
        resolved = self._begun
        if model not in resolved.models:
            raise JobError(f"the job has no model {model!r}", did_you_mean(model, resolved.models))
        if not isinstance(weights, Mapping):
            problem = f"weights are a {type(weights).__name__}, not a mapping of denoisers"
            raise ModelError(problem, "use {'transformer': state_dict}, or the denoiser's own name")
        own = resolved.models[model]
        updates = {update.component: update for update in self._updates.get(model, ())}
        for component, content in weights.items():
            fits = weight_updates.check_update(component, own)
            updates[component] = weight_updates.store_weights(resolved.store, component, content, fits=fits)
        updated = self._updates[model] = tuple(updates.values())
        digest = weight_updates.updated_digest(model_digest(own.files), updated)
        rows = TableRows(own.plan, replace(own.identity, model_digest=digest))
        update = weight_updates.WeightUpdates(updated) if updated else None
        by_model = rows_by_model(resolved.job, resolved.table, {**resolved.rows.by_model, model: rows})
        models = {**resolved.models, model: replace(own, update=update, rows=rows)}
        self._resolved = replace(resolved, models=models, rows=by_model)
        return digest

    @property
    def _begun(self) -> ResolvedJob:
        if self._resolved is None:
            raise JobError("the fleet has not rendered any rows yet", "call render(rows) first")
        return self._resolved

    def _begin(self, job: Job) -> ResolvedJob:
        """Take the output, and have the fleet start when it is asked for."""
        for runner in runners_of(job):
            problem = f"framefleet.fleet renders no job with `{runner.section}`"
            raise JobError(problem, "leave that out of the job")
        followed = (name for plugin in plugins().values() if plugin.listeners for name in plugin.sections)
        for section in sorted(job.model_fields_set.intersection(followed)):
            problem = f"framefleet.fleet has no end or clips for `{section}` to follow"
            raise JobError(problem, "leave it out of the job, and use the records that `render` returns")
        job = job.model_copy(update={"fleet": as_joined(job.fleet)})
        check_own_ray(job.fleet)
        check_gpu(job)
        resolved = self._stack.enter_context(closing(resolve_job(job, self._watch)))
        self._lock = self._stack.enter_context(DriverLock(resolved.store, can_pause=True))
        claim(resolved)
        self._stack.callback(resolved.store.delete_all, WEIGHTS)
        self._start = self._stack.enter_context(Start(job.fleet, job.retries))
        return resolved


def fleet(
    job: Job | str | Path | Mapping[str, Any], *, on_progress: Callable[[Progress], None] | None = None
) -> WarmFleet:
    """Return a job's workers as a context, to render rows call by call, such as rollouts.

    job: a job file's path, or its content; without a table. Equal rows have equal bits, batched or not.
    """
    return WarmFleet(job, on_progress=on_progress)


def _with_rows(resolved: ResolvedJob, job: Job) -> ResolvedJob:
    """Return the job with other rows; what it opened stays open."""
    job = job.model_copy(update={"inputs": resolved.job.inputs})
    table, plans = open_rows(
        job, resolved.models, resolved.recipes, resolved.finder, resolved.second_models, resolved.steps
    )
    models = {
        name: replace(model, rows=TableRows(plans[name], model.identity))
        for name, model in resolved.models.items()
    }
    rows = rows_by_model(job, table, {name: model.rows for name, model in models.items()})
    return replace(resolved, job=job, table=table, models=models, rows=rows)
