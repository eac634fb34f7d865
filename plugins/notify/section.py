"""The sections `on_end` and `heartbeat` of a job. Light to import, since every job file is read with it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from framefleet.api.sections import MustBe, Section

# ${NAME} is an environment variable on the machine that renders the job.
Url = Annotated[
    str,
    Field(pattern=r"^(https?://[^/]|\$\{\w+\})"),
    MustBe("a URL that begins with https:// or http://, or an environment variable as ${NAME}"),
]


class OnEndSection(Section):
    """What to do when a run ends, for whatever reason. Not stored in job.json."""

    # The address may be a secret.
    is_stored: ClassVar[bool] = False

    when: Literal["always", "failed"] = "always"
    """always: after every run. failed: unless the exit code is 0."""
    webhook: Url | None = Field(default=None, repr=False)
    """URL to post the summary to, as JSON."""
    command: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list, repr=False)
    """Command to run, e.g. [notify, --team, video]; it gets the summary as JSON on standard input."""


class HeartbeatSection(Section):
    """URLs of a monitor, e.g. healthchecks.io or Cronitor, to request for each run, so that it notices a
    missing run. Not stored in job.json.
    """

    is_stored: ClassVar[bool] = False  # anybody who knows the address can report for the job

    start: Url | None = Field(default=None, repr=False)
    """URL to request when a run starts."""
    end: Url | None = Field(default=None, repr=False)
    """URL to request when a run ends; if `failed` is set, only if the exit code is 0."""
    failed: Url | None = Field(default=None, repr=False)
    """URL to request when a run ends otherwise, e.g. with failed rows, an error or a spent budget."""
