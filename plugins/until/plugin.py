"""Register the section `until` of a job: renders new seeds until enough clips of each group pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from framefleet.api import Listener, Plugin
from framefleet.jobs.doors import inner_outputs_of
from framefleet.plugins.until.names import ACCEPTED, SURPLUS, UNTIL

if TYPE_CHECKING:
    from framefleet.api.commands import Watch
    from framefleet.api.jobs import Job
    from framefleet.api.outputs import Store  # imports fsspec


class UntilListener(Listener):
    def rendered(self, job: Job, watch: Watch) -> None:
        """Mark full clips like their drafts, before the listener of `words` captions by these marks."""
        if getattr(job, UNTIL) is None:
            return
        from framefleet.api.jobs import store_of_job
        from framefleet.plugins.until.marks import copy_marks

        for inner, section in inner_outputs_of(job).items():
            copy_marks(store_of_job(job), inner, f"{section}_row_id")

    def notes(self, store: Store) -> Sequence[str]:
        from framefleet.plugins.until.acceptance import read_acceptance

        return acceptance.lines() if (acceptance := read_acceptance(store)) else ()


PLUGIN = Plugin(
    sections={UNTIL: "framefleet.plugins.until.section:UntilSection"},
    columns_of_sections={UNTIL: "framefleet.plugins.until.marks:open_marks"},
    runners=["framefleet.plugins.until.runner:UntilRunner"],
    section_columns={UNTIL: (ACCEPTED, SURPLUS)},
    files={"chosen": "rows", "until.json": "derived"},
    listeners=["framefleet.plugins.until.plugin:UntilListener"],
)
