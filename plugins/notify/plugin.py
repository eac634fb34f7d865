"""The section `on_end` of a job: who hears how a run has ended."""

from framefleet.doors import Plugin

PLUGIN = Plugin(
    sections={"on_end": "framefleet.plugins.notify.section:OnEndSection"},
    listeners=["framefleet.plugins.notify.listener:EndListener"],
)
