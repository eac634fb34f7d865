"""Register the section `marks`, and the command `framefleet trace`."""

from framefleet.api import Plugin

PLUGIN = Plugin(
    commands={"Check and repair": ["framefleet.plugins.marks.command:trace_command"]},
    sections={"marks": "framefleet.plugins.marks.settings:MarksSection"},
    file_steps={"marks": "framefleet.plugins.marks.step:MarkStep"},
    record_columns={"marks": "string"},
)
