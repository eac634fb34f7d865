"""The section `post` of a job: a second file for each clip, upscaled or with more frames."""

from framefleet.api import Plugin

PLUGIN = Plugin(
    sections={"post": "framefleet.plugins.post.section:PostSection"},
    file_steps={"post": "framefleet.plugins.post.step:PostStep"},
)
