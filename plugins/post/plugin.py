"""A second file of each clip, upscaled or with more frames: the section `post` of a job."""

from framefleet.api import Plugin

PLUGIN = Plugin(
    sections={"post": "framefleet.plugins.post.section:PostSection"},
    file_steps={"post": "framefleet.plugins.post.step:PostStep"},
)
