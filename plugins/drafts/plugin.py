"""Register the section `draft` of a job: renders rows cheaply first, and only the best in full."""

from framefleet.api import Plugin

SECTION, DRAFTS = "draft", "drafts"  # section of a job file; inner output for the drafts
DRAFT_ROW_ID = "draft_row_id"  # column of records

PLUGIN = Plugin(
    sections={SECTION: "framefleet.plugins.drafts.section:DraftSection"},
    runners=["framefleet.plugins.drafts.runner:DraftRunner"],
    files={"chosen": "rows"},
    inner_outputs={DRAFTS: SECTION},
)
