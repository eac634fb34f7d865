"""What plugins do with the file of each clip: a `FileStep` for a section of the job file.

A worker's writers call steps in the background, while other rows are rendered. A job without steps calls
nothing here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np
import pyarrow as pa

from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.outputs.columns import CellValue, ClipColumn, cell_of
from framefleet.pipeline.outputs.frames.frames import Pictures
from framefleet.pipeline.outputs.media.media_settings import Media

if TYPE_CHECKING:
    from framefleet.pipeline.outputs.clips import Clip
    from framefleet.pipeline.outputs.frames.result import Audio

OfMethod = TypeVar("OfMethod")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInput:
    """A clip that is about to be stored, as it was rendered."""

    clip: Clip
    media: Media  # how it is stored
    # Returns the bytes at a path or URL that the clip's request names; None if they are not available.
    read: Callable[[str], bytes] | None = None
    notes: dict[object, Any] = field(default_factory=dict)  # what a step has found out, for its later calls
    # What steps leave here while they make the file: values of their columns, and an XMP file to lie next to
    # the clip, the same for all clips of a row.
    values: dict[str, CellValue] = field(default_factory=dict)
    labels: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastFrames:
    """Rows have to render at least two frames. key, value: in the job, which asks for the step.

    times: by which a second file multiplies their rate.
    """

    key: str
    value: object
    side: int  # pixels of the shorter side, at least; 0: any
    fix: str
    times: int = 1


class FileStep:
    """One step of one job. A subclass is a frozen dataclass of its settings, and overrides what it needs.

    It is pickled to the workers. What it raises fails the row, and so does a value that its column cannot
    hold unchanged.
    """

    # Steps are called in ascending order; the last one sees the file as it is stored.
    order: ClassVar[int] = 0
    # Whether it changes the file. Its settings then decide whether an output can be continued, and it is run
    # again when a row is replayed. It never changes a row_id, which is about the frames as rendered.
    changes_file: ClassVar[bool] = True
    # Its columns of records. `file` or `second_file` leaves their values in its input.
    columns: ClassVar[pa.Schema] = pa.schema([])
    # The ending of the file's name, e.g. ".npy", if it changes the format of the file. Readers of records
    # accept the `suffixes` of installed plugins.
    suffix: ClassVar[str | None] = None

    # -- Of a job --

    @property
    def unrepeatable(self) -> str | None:
        """What makes files of equal frames differ, as records name it; None: nothing."""
        return None

    @property
    def labels(self) -> tuple[str, ...]:
        """What a clip carries because of it, for people."""
        return ()

    @property
    def least_frames(self) -> LeastFrames | None:
        """What rows have to render, except with a user's own recipe; None: anything."""
        return None

    def note_of_size(self, height: int, width: int) -> str | None:
        """Return what to say before clips of this size are rendered, if anything."""
        return None

    @classmethod
    @abstractmethod
    def open(cls, section: Any, *, folder: str | None) -> Self | None:
        """Return the step that a section asks for, or None; `folder` is the job file's. Raises UserError."""

    def check(self, media: Media) -> None:
        """Raise JobError if it does not work with files of this format."""

    # -- Of job.json, which may be anybody's --

    def written(self, section: dict[str, Any]) -> Any:
        """Return what job.json says about the section, without secrets. section: all of its values."""
        return section

    @classmethod
    def decisive(cls, section: Any) -> Any:
        """Return what must stay the same to continue an output. section: as it is in job.json."""
        return section if cls.changes_file else {}

    @classmethod
    def again(cls, section: Any, *, allow_pickle: bool) -> FileStep | None:
        """Return the step that makes a row's file again. section: as in job.json. Raises JobError.

        None: there is none, and rows whose frames it has changed are not replayed.
        """
        return None

    # -- On a worker --

    def prepare(self) -> None:
        """Load what it needs, once per worker and before its first row. Raises what prevents that."""

    def frames(self, frames: Pictures, of: StepInput) -> Pictures:
        """Return the frames that are encoded, the same for the same frames."""
        return frames

    def sound(self, audio: Audio, of: StepInput) -> Audio:
        """Return the sound that is encoded, the same for the same sound."""
        return audio

    def tags(self, of: StepInput) -> Mapping[str, str]:
        return {}

    def file(self, content: bytes, of: StepInput) -> bytes:
        """Return the file that is stored. content: as it was encoded."""
        return content

    def second_file(self, of: StepInput) -> Clip | None:
        """Return another clip to store, in the same format. Only one step of a job may return one."""
        return None

    def returned(self, method: str, value: Any, kind: type[OfMethod]) -> OfMethod:
        """Return what one of these methods has returned. Raises RenderError if it is of another type."""
        if isinstance(value, kind):
            return value
        problem = f"`{method}` returned {type(value).__name__}"
        raise RenderError(problem, f"have it return {kind.__name__}")

    def changed_frames(self, frames: Pictures, of: StepInput) -> Pictures:
        """Return the result of `frames`. Raises RenderError if it is of another form."""
        made = self.returned("frames", self.frames(frames, of), np.ndarray)
        if made.ndim != frames.ndim or made.dtype != frames.dtype:
            problem = f"`frames` returned {made.dtype} of the shape {made.shape}"
            raise RenderError(problem, f"have it return what it got: {frames.dtype} of {frames.shape}")
        return made

    def changed_file(self, content: bytes, of: StepInput) -> bytes:
        """Return the result of `file`. Raises RenderError if it is no bytes, or empty."""
        if made := self.returned("file", self.file(content, of), bytes):
            return made
        raise RenderError("`file` returned 0 bytes", "have it return the file that is stored")


def added_columns(steps: Mapping[str, FileStep], columns: Iterable[ClipColumn]) -> pa.Schema:
    """Return the columns that plugins add to records."""
    own = (field for step in steps.values() for field in step.columns)
    return pa.schema([*own, *(column.field for column in columns)])


def suffix_of(media: Media, steps: Collection[FileStep]) -> str:
    """Return how names of clips end. steps: in their order."""
    return [media.suffix, *(step.suffix for step in steps if step.suffix)][-1]


def checked_values(steps: Mapping[str, FileStep], values: Mapping[str, object]) -> dict[str, CellValue]:
    """Return what steps add to a record. Raises RenderError for what their columns cannot hold."""
    cells: dict[str, CellValue] = {}
    for section, step in steps.items():
        for column in step.columns:
            try:
                cells[column.name] = cell_of(column, values.get(column.name))
            except ValueError as error:
                problem = f"file step {section}: {error}"
                raise RenderError(problem, "set a value of that type, or change `columns`") from None
    if unknown := [name for name in values if name not in cells]:
        problem = f"file steps: there is a value for {unknown[0]!r}, but no such column"
        raise RenderError(problem, did_you_mean(unknown[0], cells))
    return cells
