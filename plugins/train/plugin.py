"""Trainings: the command `framefleet train`, and job files with the section `train`."""

from framefleet.api import Plugin

PLUGIN = Plugin(
    commands={"Render": ["framefleet.plugins.train.command:train_command"]},
    job_kinds={"train": "framefleet.plugins.train.command:TRAINING_KIND"},
)
