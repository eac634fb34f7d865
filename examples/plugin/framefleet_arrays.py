"""A plugin: a score, a format of clips, a recipe, a format of exports and a command."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

import framefleet
from framefleet.api import Plugin
from framefleet.api.clips import FileStep, StepInput
from framefleet.api.exports import ShardWriter
from framefleet.api.sections import Section


class ArraysSection(Section):
    """Clips as NumPy arrays."""

    npy: bool = False
    """Store frames as .npy, and their mean as the column `brightness`."""


@dataclass(frozen=True)
class ArrayStep(FileStep):
    """Stores the frames as they are, and measures them."""

    columns = pa.schema([("brightness", pa.float64())])
    suffix = ".npy"

    @classmethod
    def open(cls, section: ArraysSection, *, folder: str | None) -> "ArrayStep | None":
        return cls() if section.npy else None

    def file(self, content: bytes, of: StepInput) -> bytes:
        of.values["brightness"] = float(of.clip.frames.mean()) / 255
        buffer = io.BytesIO()
        np.save(buffer, of.clip.frames)
        return buffer.getvalue()


class ZipShard(ShardWriter):
    """A zip file of clips."""

    read_by = "read it with zipfile"

    @staticmethod
    def path_of(name: str) -> str:
        return f"{name}.zip"

    def add(self, rows: pa.Table, clips: Sequence[bytes]) -> None:
        self.writer = self.writer or zipfile.ZipFile(self.file, "w")
        for path, clip in zip(rows["path"].to_pylist(), clips, strict=True):
            self.writer.writestr(path, clip)


def brightest_command(output: str) -> None:
    """Print the path of the brightest clip of an output."""
    tables = framefleet.open_output(output).records(["path", "brightness"])
    rows = (row for table in tables for row in table.to_pylist())
    print(max(rows, key=lambda row: row["brightness"])["path"])


PLUGIN = Plugin(
    commands={"Look at clips": ["framefleet_arrays:brightest_command"]},
    sections={"arrays": "framefleet_arrays:ArraysSection"},
    file_steps={"arrays": "framefleet_arrays:ArrayStep"},
    suffixes=[".npy"],
    recipes=["framefleet_recipes:RECIPES"],
    engines={"program": "framefleet_engine:ProgramEngine"},
    export_formats={"zip": "framefleet_arrays:ZipShard"},
)
