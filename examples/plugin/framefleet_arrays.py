"""A plugin: the score `brightness`, the output format .npy and the command `brightest`."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from framefleet.api import Plugin
from framefleet.jobs.job.section import Section
from framefleet.pipeline.outputs.clip_step import ClipStep, StepInput, StepValues


class ArraysSection(Section):
    """Clips as NumPy arrays."""

    npy: bool = False
    """Store frames as .npy, and their mean as the column `brightness`."""


@dataclass(frozen=True)
class ArrayStep(ClipStep):
    """Stores the frames as they are, and measures them."""

    columns = pa.schema([("brightness", pa.float64())])
    suffix = ".npy"

    @classmethod
    def open(cls, section: ArraysSection, *, folder: str | None) -> "ArrayStep | None":
        return cls() if section.npy else None

    def file(self, content: bytes, of: StepInput) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, of.clip.frames)
        return buffer.getvalue()

    def values(self, of: StepInput, content: bytes, record: Any) -> StepValues:
        return StepValues(values={"brightness": float(of.clip.frames.mean()) / 255})


def brightest_command(output: str) -> None:
    """Print the path of the brightest clip of an output."""
    import framefleet

    rows = framefleet.open_output(output).records(["path", "brightness"])
    print(
        max((row for table in rows for row in table.to_pylist()), key=lambda row: row["brightness"])["path"]
    )


PLUGIN = Plugin(
    commands={"Look at clips": ["framefleet_arrays:brightest_command"]},
    sections={"arrays": "framefleet_arrays:ArraysSection"},
    clip_steps={"arrays": "framefleet_arrays:ArrayStep"},
    suffixes=[".npy"],
)
