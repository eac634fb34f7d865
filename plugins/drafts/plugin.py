"""The section `draft` of a job: rows are rendered cheaply first, and only the best of them in full."""

from framefleet.doors import Plugin

PLUGIN = Plugin(
    sections={"draft": "framefleet.plugins.drafts.section:DraftSection"},
    runners=["framefleet.plugins.drafts.runner:DraftRunner"],
)
