"""Renders jobs with the section `prompts`: their prompts are written first, as a table in the output."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from framefleet.doors import JobRunner, PlanRun, Run, Scope

if TYPE_CHECKING:
    from framefleet.cluster.driver.progress import Summary
    from framefleet.jobs.job.schema import Job
    from framefleet.jobs.plan.plan import JobPlan, PlanOptions
    from framefleet.jobs.show.watch import Watch


class PromptsRunner(JobRunner):
    section = "prompts"
    order = -100  # the first: whatever else makes rows makes them of these prompts

    def render(self, job: Job, watch: Watch, scope: Scope, *, run: Run) -> Summary:
        from framefleet.plugins.words.prompts import write_prompts

        written = write_prompts(job, watch, scope.table)
        # Without a prompt in it, the table is rendered as it is.
        return run(job, watch, replace(scope, table=written.place or scope.table))

    def plan(
        self, job: Job, watch: Watch, wanted: PlanOptions, *, run: PlanRun, table: str | None = None
    ) -> JobPlan:
        from framefleet.jobs.render.resolve import base_of
        from framefleet.pipeline.rows.sweeps.settings import Sweep
        from framefleet.plugins.words.prompts import UnwrittenPlan, rewrite_of, write_prompts

        written = write_prompts(job, watch, is_plan=True)
        if written.place:
            inputs = job.inputs.model_copy(update={"base": base_of(job)})
            changed = {"table": written.place, "sweep": Sweep(), "inputs": inputs}
            return run(job.model_copy(update=changed), watch, wanted)
        plan = run(job, watch, wanted, table=table)
        of = f"{written.num_left:,} of {written.num_texts:,}"
        line = f"prompts: {of} are written first, by {rewrite_of(job).model}"
        return UnwrittenPlan.of(plan, line=line)

    def table(self, job: Job) -> str:
        from framefleet.jobs.job.output import below
        from framefleet.pipeline.outputs.layout import PROMPT_TABLES

        return below(job, f"{PROMPT_TABLES}/*.parquet")
