"""What a plugin is made of: for ours, and for those of other packages."""

from framefleet.jobs.doors import (
    JobKind as JobKind,
    JobRunner as JobRunner,
    Listener as Listener,
    MemoryNeed as MemoryNeed,
    Planner as Planner,
    PlanRun as PlanRun,
    Run as Run,
    Scope as Scope,
    Shown as Shown,
)
from framefleet.pipeline.plugin import InnerOutput as InnerOutput, Plugin as Plugin
