"""Register the section `scores` of a job, and the command `framefleet score`."""

from framefleet.api import Plugin
from framefleet.plugins.scores.names import BY_MODEL, WITHOUT_MODEL

PLUGIN = Plugin(
    commands={"Use clips": ["framefleet.plugins.scores.command:score_command"]},
    columns_of_sections={"scores": "framefleet.plugins.scores.clip_scores:open_scores"},
    sections={"scores": "framefleet.plugins.scores.section:ScoresSection"},
    command_columns={
        name: ("score", "OUTPUT", "--scores", BY_MODEL.get(name, name))
        for name in (*WITHOUT_MODEL, *BY_MODEL)
    },
)
