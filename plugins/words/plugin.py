"""Register the sections `judge`, `captions` and `prompts`, and the commands `judge` and `prompts`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from framefleet.api import JobRunner, Listener, Plugin, RunJob, Scope
from framefleet.api.errors import count_text

if TYPE_CHECKING:
    from framefleet.api.commands import Watch
    from framefleet.api.jobs import Job, Summary
    from framefleet.api.outputs import Store
    from framefleet.plugins.forecast.job_plan import JobPlan, PlanOptions, PlanRun


class PromptsRunner(JobRunner):
    """Renders jobs with the section `prompts`: first writes these, as a table in the output."""

    section = "prompts"
    order = -100  # first, so that other plugins make rows from these prompts

    def render(self, job: Job, watch: Watch, scope: Scope, *, run: RunJob) -> Summary:
        from framefleet.plugins.words.prompts import write_prompts

        # Failed rows have their prompts, so `retry` needs no others.
        limit = scope.limit if scope.only is None else 0
        written = write_prompts(job, watch, scope.table, limit=limit)
        # A table without prompts is rendered unchanged.
        return run(job, watch, replace(scope, table=written.place or scope.table))

    def plan(
        self, job: Job, watch: Watch, wanted: PlanOptions, *, run: PlanRun, table: str | None = None
    ) -> JobPlan:
        from framefleet.plugins.words.prompts import rewrite_of, write_prompts

        with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
            written = write_prompts(job, watch, table, limit=wanted.limit, scratch=folder)
            plan = run(job, watch, wanted, table=written.place or table)
        if not written.num_left:
            return plan
        of = f"{written.num_left:,} of {written.num_texts:,}"
        line = f"prompts: {of} to be written first, by {rewrite_of(job).model}"
        return replace(plan, before=(line, *plan.before))

    def table(self, job: Job) -> str:
        from framefleet.api.jobs import below
        from framefleet.pipeline.outputs.layout import PROMPT_TABLES

        return below(job, f"{PROMPT_TABLES}/*.parquet")


class WordsListener(Listener):
    def check(self, job: Job) -> None:
        from framefleet.plugins.columns.follow import check_questions

        check_questions(job)

    @contextmanager
    def running(self, job: Job) -> Iterator[Callable[[Summary], None]]:
        from framefleet.plugins.words.endpoint import counting_requests

        with counting_requests():
            yield lambda _: None

    def following(self, job: Job, watch: Watch) -> AbstractContextManager[None]:
        from framefleet.plugins.columns.follow import following

        return following(job, watch)

    def notes(self, store: Store) -> Sequence[str]:
        from framefleet.plugins.columns.column_lock import refused_clips

        return [
            f"{name}: an answer was refused for {count_text(num, 'clip')}"
            for name, num in refused_clips(store).items()
            if num
        ]

    def rendered(self, job: Job, watch: Watch) -> None:
        from framefleet.plugins.columns.follow import fill_at_end

        fill_at_end(job, watch)


PLUGIN = Plugin(
    commands={
        "Use clips": [
            "framefleet.plugins.words.command:judge_command",
            "framefleet.plugins.words.command:prompts_command",
        ]
    },
    sections={
        "judge": "framefleet.plugins.words.section:JudgeSection",
        "captions": "framefleet.plugins.words.section:CaptionsSection",
        "prompts": "framefleet.plugins.words.section:PromptsSection",
    },
    late_columns_of_sections={
        "judge": "framefleet.plugins.words.questions:open_judge",
        "captions": "framefleet.plugins.words.questions:open_captions",
    },
    files={"answers": "kept", "prompts": "rows"},
    runners=["framefleet.plugins.words.plugin:PromptsRunner"],
    listeners=["framefleet.plugins.words.plugin:WordsListener"],
)
