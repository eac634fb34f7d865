"""What plugins are made of: ours, and those of other packages."""

from framefleet.jobs.doors import (
    JobKind as JobKind,
    JobRunner as JobRunner,
    Listener as Listener,
    RunJob as RunJob,
    Scope as Scope,
)
from framefleet.pipeline.plugin import Plugin as Plugin
