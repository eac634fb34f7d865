"""Scores of clips: the section `scores` of a job, and the command `framefleet score`."""

from framefleet.doors import Plugin

PLUGIN = Plugin(
    commands={"Use clips": ["framefleet.plugins.scores.command:score_command"]},
    sections={"scores": "framefleet.plugins.scores.section:ScoresSection"},
    clip_steps={"scores": "framefleet.plugins.scores.clip_scores:ScoreStep"},
)
