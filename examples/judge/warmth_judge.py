"""A judge as a plugin: a service of your own rates the mean colour of each clip, the column `warmth`."""

from urllib.request import urlopen

import pyarrow as pa

from framefleet.api import Plugin
from framefleet.jobs.job.section import Section
from framefleet.pipeline.outputs.clip_step import LateStep, late_field


class Warmth(Section):
    url: str = ""  # of the service; without it, nobody is asked


class WarmthStep(LateStep):
    columns = pa.schema([late_field("warmth", pa.float64())])

    @classmethod
    def open(cls, section, *, folder):
        step = cls()
        step.url = section.url
        return step if step.url else None

    def ask(self, column, frames, record):
        return float(urlopen(self.url, str(frames.mean((0, 1, 2))).encode(), timeout=30).read())


PLUGIN = Plugin(sections={"warmth": "warmth_judge:Warmth"}, clip_steps={"warmth": "warmth_judge:WarmthStep"})
