"""What a plugin is made of: for ours, and for those of other packages."""

from framefleet.jobs.doors import (
    JobKind as JobKind,
    JobRunner as JobRunner,
    Listener as Listener,
    Planner as Planner,
    PlanRun as PlanRun,
    RowMemory as RowMemory,
    Run as Run,
    Scope as Scope,
    Shown as Shown,
)
from framefleet.pipeline.plugin import InnerOutput as InnerOutput, Plugin as Plugin
