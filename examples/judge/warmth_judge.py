"""A judge as a plugin: a service of your own rates the mean colour of each clip, the column `warmth`."""

from functools import partial
from urllib.request import urlopen

import pyarrow as pa

from framefleet.api import Plugin
from framefleet.api.clips import ClipColumn
from framefleet.api.sections import Section


class Warmth(Section):
    url: str = ""  # of the service; without it, nobody is asked


def columns(section, folder):
    rate = partial(warmth, section.url)
    return [ClipColumn(name="warmth", type=pa.float64(), section="warmth", function=rate, is_late=True)]


def warmth(url, frames, record):
    return float(urlopen(url, str(frames.mean((0, 1, 2))).encode(), timeout=30).read())


PLUGIN = Plugin(
    sections={"warmth": "warmth_judge:Warmth"}, late_columns_of_sections={"warmth": "warmth_judge:columns"}
)
