"""Register the section `read_metadata` of a job: rows from the metadata of files in its table's folder."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING

from framefleet.api import JobRunner, Plugin, RunJob, Scope
from framefleet.plugins.metadata.section import FOLDER, READ_METADATA

if TYPE_CHECKING:
    from framefleet.api.commands import Watch
    from framefleet.api.jobs import Job, Summary
    from framefleet.plugins.forecast.job_plan import JobPlan, PlanOptions, PlanRun


class MetadataRunner(JobRunner):
    """Renders jobs with the section `read_metadata`: first reads their rows, as a table in the output."""

    section = READ_METADATA
    order = -200  # first, so that other plugins make rows from these

    def render(self, job: Job, watch: Watch, scope: Scope, *, run: RunJob) -> Summary:
        from framefleet.plugins.metadata.table import store_table

        table = scope.table if _is_off(job) else store_table(job, watch)
        return run(job, watch, replace(scope, table=table))

    def plan(
        self, job: Job, watch: Watch, wanted: PlanOptions, *, run: PlanRun, table: str | None = None
    ) -> JobPlan:
        from framefleet.plugins.metadata.table import write_table

        with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
            return run(job, watch, wanted, table=table if _is_off(job) else write_table(job, watch, folder))

    def table(self, job: Job) -> str | None:
        from framefleet.plugins.metadata.table import table_place

        return None if _is_off(job) else table_place(job)


def _is_off(job: Job) -> bool:
    return not getattr(job, READ_METADATA).root


PLUGIN = Plugin(
    sections={READ_METADATA: "framefleet.plugins.metadata.section:ReadMetadataSection"},
    files={FOLDER: "rows"},
    runners=["framefleet.plugins.metadata.plugin:MetadataRunner"],
)
