"""The section `draft` of a job: rows are rendered cheaply first, and only the best of them in full."""

from framefleet.api import Plugin

SECTION, DRAFTS = "draft", "drafts"  # of a job file; the output of the drafts in the job's
DRAFT_ROW_ID = "draft_row_id"  # column of records

PLUGIN = Plugin(
    sections={SECTION: "framefleet.plugins.drafts.section:DraftSection"},
    runners=["framefleet.plugins.drafts.runner:DraftRunner"],
    files={"chosen": "rows"},
    inner_outputs={DRAFTS: SECTION},
)
