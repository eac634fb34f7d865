"""What plugins do with each clip while it is stored: a `ClipStep` for a section of the job file.

A worker's writers call steps in the background, while other rows are rendered. A job without steps calls
nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import pyarrow as pa

from framefleet.pipeline.errors import EndpointError, Problem, RenderError, StoreError, shown
from framefleet.pipeline.guards.mistakes import did_you_mean
from framefleet.pipeline.outputs.parts.records import DIGEST, MAY_COME_LATER
from framefleet.pipeline.request import quickly_pickled

if TYPE_CHECKING:
    from framefleet.pipeline.outputs.clips import Clip
    from framefleet.pipeline.outputs.frames.frames import Frames, Pictures
    from framefleet.pipeline.outputs.frames.result import Audio
    from framefleet.pipeline.outputs.media.media_settings import Media

CellValue = bool | int | float | str | None


@quickly_pickled
@dataclass(frozen=True, slots=True, kw_only=True)
class StepValues:
    """What a step adds to the record of one clip."""

    values: Mapping[str, CellValue] = field(default_factory=dict)  # by column
    errors: Mapping[str, str] = field(default_factory=dict)  # by column: why its value is missing


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInput:
    """A clip that is about to be stored, as it was rendered."""

    clip: Clip
    media: Media  # how it is stored
    # Returns the bytes at a path or URL that the clip's request names; None where these are not at hand.
    read: Callable[[str], bytes] | None = None
    notes: dict[object, Any] = field(default_factory=dict)  # what a step has found out, for its later calls


class ClipStep:
    """One step of one job. A subclass is a frozen dataclass of its settings, and overrides what it needs.

    It is pickled to the workers. What it raises fails the row, and so does a value that its column would have
    to change; one that is merely missing is said in the `errors` of `values`.
    """

    # Steps are called in ascending order; the last one sees the file as it is stored.
    order: ClassVar[int] = 0
    # Whether it changes the file. Its settings then decide whether an output can be continued, and it is run
    # again when a row is replayed. It never changes a row_id, which is about the frames as rendered.
    changes_file: ClassVar[bool] = True

    # -- Of a job --

    @classmethod
    def open(cls, section: Any, *, folder: str | None) -> Self | None:
        """Return the step that a section asks for, or None; `folder` is the job file's. Raises UserError."""
        raise NotImplementedError

    @property
    def columns(self) -> pa.Schema:
        """The columns that it adds to records. Metadata of a field are kept in the parts of records."""
        return pa.schema([])

    @classmethod
    def column_names(cls, section: Any) -> list[str]:
        """Return the names of its columns by the section alone, without opening anything."""
        return []

    @property
    def functions(self) -> tuple[Callable[..., object], ...]:
        """The user's own functions that it calls, whose modules workers on other machines need."""
        return ()

    @property
    def unrepeatable(self) -> str | None:
        """What gives equal frames other bytes, as records name it; None: nothing does."""
        return None

    @property
    def suffix(self) -> str | None:
        """The ending of the file's name, e.g. ".npy", where it makes a file of another format of it.

        Readers of records accept those that installed plugins name as their `suffixes`.
        """
        return None

    @property
    def labels(self) -> tuple[str, ...]:
        """What a clip carries because of it, for people."""
        return ()

    def check(self, media: Media) -> None:
        """Raise JobError where it cannot be done with files of this format."""

    def problem_of(
        self, kind: Literal["video", "image", "audio"], arguments: Mapping[str, Any]
    ) -> Problem | None:
        """Return why it cannot be done with the clip of a row, as far as its arguments say.

        kind: of what its model renders. Not called for rows of users' own recipes.
        """
        return None

    def size_note(self, height: int, width: int) -> str | None:
        """Return what is to be said before clips of this size are rendered."""
        return None

    def repeatable(self) -> Self | None:
        """Return the step without what is not repeatable; None where nothing is left."""
        return None if self.unrepeatable else self

    # -- Of job.json, which may be anybody's. job: the job there, with all sections. --

    def written(self, section: dict[str, Any]) -> Any:
        """Return what job.json says of the section, without secrets. section: its values, with defaults."""
        return section

    @classmethod
    def decisive(cls, section: Any, job: Mapping[str, Any]) -> Any:
        """Return what must be the same for an output to be continued. section: as it is in job.json."""
        return section if cls.changes_file else {}

    @classmethod
    def again(cls, section: Any, *, allow_pickle: bool) -> ClipStep | None:
        """Return the step that makes a row's file again. section: as in job.json. Raises JobError."""
        return None

    # -- Of jobs that are made of a job --

    @classmethod
    def for_choice(cls, section: Any) -> Any:
        """Return the section of a job among whose clips some are chosen, by the columns of steps."""
        return section

    @classmethod
    def for_comparison(cls, section: Any) -> Any:
        """Return the section of a job that renders rows again to compare frames and sound, not files."""
        return section if cls.changes_file else type(section)()

    # -- On a worker --

    def prepare(self) -> None:
        """Load what it needs, once per worker and before its first row. Raises what keeps it from that."""

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

    def derived(self, of: StepInput) -> Clip | None:
        """Return another clip to be stored too, in the same format; of all steps of a job, one makes one."""
        return None

    def label(self, of: StepInput) -> bytes | None:
        """Return an XMP file to lie next to the clip; the same for all clips of a row."""
        return None

    def values(self, of: StepInput, content: bytes, record: Mapping[str, Any]) -> StepValues:
        """Return the values of its columns. content: the stored file. record: the other columns."""
        return StepValues()


class LateStep(ClipStep):
    """A step whose columns are filled in after a clip has its record: another's answers, which may be slow.

    The driver asks in the background, and `framefleet judge` later; workers do not get the step. Columns are
    null until then, and whatever chooses among clips waits. A subclass makes its columns by `late_field`.
    """

    changes_file: ClassVar[bool] = False
    column_key: ClassVar[str] = ""  # of the job, which names the columns

    @property
    def where(self) -> str | None:
        """A condition in SQL on records; only these clips are asked about, once all rows have ended."""
        return None

    @property
    def num_parallel(self) -> int:
        """Clips that are asked about at once; `ask` is then called in as many threads."""
        return 1

    def check_names(self, records: pa.Schema, arguments: Collection[str]) -> None:
        """Raise JobError for a column or argument that no record will have. records: their columns."""

    def thinned(self, column: str, frames: Frames) -> Frames:
        """Return as much of a clip's frames as `ask` needs: they stay in memory while it waits."""
        return frames

    def ask(self, column: str, frames: Frames | None, record: Mapping[str, Any]) -> CellValue:
        """Return the cell of a column. frames: (T, H, W, 3) uint8, as `thinned` returned them.

        record: its columns, and the row's arguments. Raises EndpointError where nobody answers now: the
        column is not asked for again in this pass, nor is it after some OSErrors in a row. What else it
        raises is about this clip.
        """
        raise NotImplementedError


def may_answer_later(error: Exception) -> bool:
    """Return whether an error of `ask`, or of reading its clip, means that nobody answers now."""
    return isinstance(error, EndpointError | OSError) or (isinstance(error, StoreError) and error.may_pass)


def late_field(name: str, kind: pa.DataType, digest: str | None = None) -> pa.Field:
    """Return a column that may be filled in later. digest: of what its values come from, e.g. a question."""
    return pa.field(name, kind).with_metadata(MAY_COME_LATER | ({DIGEST: digest.encode()} if digest else {}))


def late_columns(steps: Mapping[str, ClipStep]) -> list[str]:
    """Return the columns for which whatever chooses among clips has to wait."""
    return [name for step in steps.values() if isinstance(step, LateStep) for name in step.columns.names]


def added_columns(steps: Mapping[str, ClipStep]) -> pa.Schema:
    """Return the columns that steps add to records."""
    return pa.schema([field for step in steps.values() for field in step.columns])


def suffix_of(media: Media, steps: Collection[ClipStep]) -> str:
    """Return how names of clips end. steps: in their order."""
    return [media.suffix, *(step.suffix for step in steps if step.suffix)][-1]


def all_values(values: Mapping[str, StepValues]) -> dict[str, CellValue]:
    """Return the values of all steps by column. values: by section."""
    return {name: value for of in values.values() for name, value in of.values.items()}


def cell_of(column: pa.Field, value: object) -> CellValue:
    """Return a value as the cell of a column. Raises ValueError for one that the column would change.

    Numbers are rounded to the precision of a column of floats.
    """
    if value is None:
        return None
    with suppress(pa.ArrowException, ArithmeticError, TypeError, ValueError):
        plain: Any = value.item() if hasattr(value, "item") else value  # of NumPy or torch
        cell: Any = pa.scalar(plain, column.type).as_py()
        if pa.types.is_floating(column.type):
            is_same = not isinstance(plain, bool) and math.isfinite(cell) == math.isfinite(plain)
        else:
            is_same = cell == plain
        if is_same:
            return cell  # type: ignore[no-any-return]
    raise ValueError(f"the column {column.name!r} is {column.type}, and cannot hold {shown(value)}")


def fitting_cells(columns: pa.Schema, values: Mapping[str, CellValue]) -> dict[str, CellValue]:
    """Return the cells of these columns; None for what a column cannot hold: values may be anybody's."""
    cells: dict[str, CellValue] = dict.fromkeys(columns.names)
    for column in columns:
        with suppress(ValueError):
            cells[column.name] = cell_of(column, values.get(column.name))
    return cells


def checked_values(section: str, columns: pa.Schema, values: object) -> StepValues:
    """Return what a section's step adds to a record. Raises RenderError for what its columns cannot hold."""
    title = f"clip step {section}"
    if not isinstance(values, StepValues):
        raise RenderError(f"{title}: its values are {shown(values)}", "return StepValues")
    if unknown := [name for name in values.values if name not in columns.names]:
        problem = f"{title}: it has a value for {unknown[0]!r}, and no such column"
        raise RenderError(problem, did_you_mean(unknown[0], columns.names))
    try:
        cells = {name: cell_of(columns.field(name), value) for name, value in values.values.items()}
    except ValueError as error:
        raise RenderError(f"{title}: {error}", "return a value of that type, or change `columns`") from None
    return replace(values, values=cells)
