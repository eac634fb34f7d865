"""Language models: the sections `judge`, `captions` and `prompts`, and commands that ask and show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from framefleet.doors import Listener, Plugin

if TYPE_CHECKING:
    from framefleet.cluster.driver.progress import Summary
    from framefleet.jobs.job.schema import Job
    from framefleet.jobs.show.watch import Watch


class WordsListener(Listener):
    @contextmanager
    def running(self, job: Job) -> Iterator[Callable[[Summary], None]]:
        from framefleet.plugins.words.endpoint import end_requests

        end_requests()  # limits count from here
        try:
            yield lambda _: None
        finally:
            end_requests()

    def following(self, job: Job, watch: Watch) -> AbstractContextManager[None]:
        from framefleet.plugins.words.answers import following

        return following(job, watch)

    def rendered(self, job: Job, watch: Watch) -> None:
        from framefleet.plugins.words.answers import fill_at_end

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
    clip_steps={
        "judge": "framefleet.plugins.words.steps:JudgeStep",
        "captions": "framefleet.plugins.words.steps:CaptionStep",
    },
    runners=["framefleet.plugins.words.runner:PromptsRunner"],
    listeners=["framefleet.plugins.words.plugin:WordsListener"],
)
