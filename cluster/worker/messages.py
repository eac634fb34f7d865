"""What driver and workers send each other. Plain values: they are pickled between machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from framefleet.cluster.worker.blame import Blame, culprit_of
from framefleet.pipeline.errors import RowError, shortened
from framefleet.pipeline.guards.redaction import public_message, public_text
from framefleet.pipeline.model.model import ModelSettings, ModelUpdate
from framefleet.pipeline.outputs.columns import ClipColumn, ColumnValues
from framefleet.pipeline.outputs.file_step import FileStep
from framefleet.pipeline.outputs.frames.result import KeptSteps
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.records import Record
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.recipes.second_model import SecondModel
from framefleet.pipeline.render.audit.schedule import Audit
from framefleet.pipeline.render.audit.verdict import Audited
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.pipeline.request import Request, quickly_pickled
from framefleet.pipeline.rows.inputs.access import Inputs

if TYPE_CHECKING:
    from framefleet.pipeline.engine import Halted


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """How rows are rendered and stored: what all workers of a run share."""

    batching: Batching
    media: Media
    store: Store
    inputs: Inputs
    recipes: Mapping[str, Recipe]  # by name
    second_models: Mapping[str, SecondModel] = field(default_factory=dict)  # those that rows may name
    audit: Audit = field(default_factory=Audit)
    # What plugins do with every clip while it is stored, by section of the job, in their order.
    steps: Mapping[str, FileStep] = field(default_factory=dict)
    columns: Sequence[ClipColumn] = ()  # that plugins add to records; a worker has those that it fills in
    keep: KeptSteps = field(default_factory=KeptSteps)  # what is kept of the steps of every row
    keep_embeddings: bool = False  # what text encoders returned is kept in the store
    checkpoint_every_s: float = 0.0  # how often half-done rows are saved; 0: never


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup(Rendering):
    """What a worker needs to know before its first row. recipes: those that its lane may run."""

    model: ModelSettings
    # SHA-256 of every file that it loads; empty: the worker asks lock and hub itself.
    model_files: Mapping[str, str] = field(default_factory=dict)
    update: ModelUpdate | None = None  # of the model's weights
    num_writers: int = 2  # clips that may be encoded and uploaded at once, at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a worker is; sent once, when its model is loaded."""

    version: str
    fingerprint: str
    model_digest: str
    environment: Mapping[str, str | int]
    node: str
    pid: int
    room: int = 0  # bytes of memory that a row has there
    has_run: bool = False  # its process has begun a row, for an earlier driver


@dataclass(frozen=True, slots=True)
class Loading:
    """A worker that has not loaded its model yet. doing: what takes its time."""

    doing: str


@quickly_pickled
@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One row to render now."""

    row_id: str
    request: Request
    attempt: int
    is_apart: bool = False  # an audit found rows of its kind to differ in a batch
    is_audited: bool = False  # it is compared with a plain call, unless it is one
    has_checkpoint: bool = False  # it is half-done already
    largest: Request | None = None  # the job's row that takes most memory, rehearsed before the first row


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """One row that did not become a clip. Strings: not every exception survives pickling."""

    row_id: str
    error_type: str
    message: str
    traceback: str
    is_final: bool = False  # the same would happen on every worker
    blame: Blame = "row"  # whose fault it is
    why: str = ""  # the reason for the blame, for people
    room: int = 0  # bytes of memory that it had, if it ran out of memory

    @classmethod
    def of(cls, row_id: str, error: Exception, traceback: str, *, room: int = 0, step: str = "") -> Self:
        """Return the report of a row that raised this error. step: the section whose file step raised it."""
        culprit = culprit_of(error)
        return cls(
            row_id=row_id,
            error_type=type(error).__name__,
            message=f"file step {step}: " * bool(step) + public_message(error),
            traceback=shortened(public_text(traceback)),
            is_final=isinstance(error, RowError) and culprit.blame == "row",
            blame=culprit.blame,
            why=culprit.reason,
            room=room,
        )


@quickly_pickled
@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRow:
    """One row whose clip is stored."""

    record: Record  # without `row_indices` and `worker`, which the driver knows
    was_batched: bool = False  # no plain call made it
    added: ColumnValues = field(default_factory=ColumnValues)  # of plugins' columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A line of a worker's log that its driver repeats. row_id: "" if it is about no row."""

    text: str
    level: int
    row_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReport:
    """What became of a worker's rows since its last report."""

    rendered: tuple[StoredRow, ...] = ()
    failed: tuple[Failed, ...] = ()
    saved: tuple[str, ...] = ()  # rows whose checkpoint is in the store, whatever else is reported of them
    handed_back: tuple[str, ...] = ()  # rows that it no longer renders, because it is drained
    is_leaving: bool = False  # it was sent SIGTERM, and wants to be drained
    remarks: tuple[Remark, ...] = ()  # lines about rows, for the log
    audited: tuple[Audited, ...] = ()  # what became of audits
    # What it counted since its start, see `pipeline/metrics.py`.
    figures: Mapping[str, float] = field(default_factory=dict)
    still_s: float = 0.0  # since the rows that it renders last made progress; 0 while it waits for others
    store_silent_s: float = 0.0  # since the output last answered, if it does not answer now
    writing_s: float = 0.0  # for how long one of its clips has been encoded, measured or stored
    is_storing: bool = False  # what has taken this long: the store, not the clip
    # The section whose column has not returned its value for this long, and the row of the clip.
    measuring: tuple[str, str] | None = None
    rendering: tuple[str, ...] = ()  # the rows that `still_s` is about, if that is long
    halt: Halted | None = None  # why an engine begins no more rows
