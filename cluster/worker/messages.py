"""What driver and workers tell each other. Plain values: they are pickled between machines."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import framefleet
from framefleet.cluster.worker.blame import Blame, culprit_of
from framefleet.pipeline.errors import RowError
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.model.environment import source_fingerprint
from framefleet.pipeline.model.model import ModelSettings, ModelUpdate, Stage
from framefleet.pipeline.outputs.clip_step import ClipStep, StepValues
from framefleet.pipeline.outputs.frames.extras import KeptSteps
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.outputs.parts.records import Record
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.pickling import quickly_pickled
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.recipes.second_model import SecondModel
from framefleet.pipeline.render.audit.schedule import Audit
from framefleet.pipeline.render.audit.verdict import Audited, AuditOrder
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.inputs.access import Inputs

if TYPE_CHECKING:
    from framefleet.pipeline.model.model import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """All that a worker needs to know before its first row.

    model_files: the SHA-256 of every file that it loads; empty, and the worker asks lock and hub itself.
    second_models: those that rows may name.
    keep_embeddings: whether what text encoders returned is kept in the store. stage: what it does of rows.
    num_writers: how many clips may be encoded and uploaded at once, at the least.
    checkpoint_every_s: how often rows under way are kept half-done; 0: never.
    steps: what plugins do with every clip while it is stored, by section of the job, in their order.
    keep: of the steps of every row. update: of the model's weights.
    """

    model: ModelSettings
    batching: Batching
    media: Media
    store: Store
    recipes: Mapping[str, Recipe]
    inputs: Inputs
    model_files: Mapping[str, str] = field(default_factory=dict)
    second_models: Mapping[str, SecondModel] = field(default_factory=dict)
    audit: Audit = field(default_factory=Audit)
    keep_embeddings: bool = False
    stage: Stage = "whole"
    num_writers: int = 2
    checkpoint_every_s: float = 0.0
    steps: Mapping[str, ClipStep] = field(default_factory=dict)
    keep: KeptSteps = field(default_factory=KeptSteps)
    update: ModelUpdate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a worker is, said once when its model is loaded.

    room: bytes of memory that a row has there. has_run: its process has begun a row, for an earlier driver.
    """

    version: str
    fingerprint: str
    model_digest: str
    environment: Mapping[str, str | int]
    node: str
    pid: int
    room: int = 0
    has_run: bool = False

    @classmethod
    def of(cls, model: Model) -> Self:
        """Return what this process says of itself."""
        from framefleet.pipeline.memory import room_bytes  # imports torch, which the driver needs not

        return cls(
            version=framefleet.__version__,
            fingerprint=source_fingerprint(),
            model_digest=model.digest,
            environment=model.environment,
            node=socket.gethostname(),
            pid=os.getpid(),
            room=room_bytes(model.environment["device"]),
        )


@dataclass(frozen=True, slots=True)
class Loading:
    """A worker that has not loaded its model yet. doing: what takes its time."""

    doing: str


@quickly_pickled
@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One row to render now.

    is_apart: an audit found rows of its kind to differ in a batch. is_audited: it is compared with a plain
    call, unless it is one. is_judged: it is rendered by a plain call, for the driver to compare, as the first
    work of a process. has_checkpoint: it is half-done already. largest: the row of the job that takes most
    memory, which a worker rehearses before its first row.
    """

    row_id: str
    request: Request
    attempt: int
    is_apart: bool = False
    is_audited: AuditOrder = False
    is_judged: bool = False
    has_checkpoint: bool = False
    largest: Request | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """One row that did not become a clip. Strings: not every exception survives pickling.

    is_final: the same would happen on every worker. blame: whose fault it is, and why we say so. room: bytes
    of memory that it had, where it ran out of that.
    """

    row_id: str
    error_type: str
    message: str
    traceback: str
    is_final: bool = False
    blame: Blame = "row"
    why: str = ""
    room: int = 0

    @classmethod
    def of(cls, row_id: str, error: Exception, traceback: str, *, room: int = 0) -> Self:
        """Return what is reported of a row that raised this."""
        culprit = culprit_of(error)
        return cls(
            row_id=row_id,
            error_type=type(error).__name__,
            message=public_text(str(error)),
            traceback=public_text(traceback),
            is_final=isinstance(error, RowError) and culprit.blame == "row",
            blame=culprit.blame,
            why=culprit.reason,
            room=room,
        )


@quickly_pickled
@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRow:
    """One row whose clip is stored. record: without `row_indices` and `worker`, which the driver knows.

    was_batched: other rows were under way with it, or, of a user's recipe, before it in its process, so that
    audits of its kind speak for it. values: of clip steps, by section.
    """

    record: Record
    was_batched: bool = False
    values: Mapping[str, StepValues] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A line of a worker's log that its driver repeats. row_id: "" where it is about none."""

    text: str
    level: int
    row_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReport:
    """What became of a worker's rows since its last report.

    saved: rows whose checkpoint is in the store, whatever else is reported of them. handed_back: rows that it
    renders no more, being drained. encoded: rows whose embeddings are in the store, of a worker that does no
    more of them. is_leaving: it was asked to end (SIGTERM), and wants to be drained.
    remarks: what there is to say of rows.
    audited: what became of audits. prompt_lengths: a pickled `PromptLengths`, once forwards were
    seen to be as long as the prompts. figures: what it counted since its start, see `pipeline/metrics.py`.
    store_silent_s: since the output answered it last, where it does not. still_s: since the rows that it
    renders came further; 0 while it waits for others. rendering: these rows, where that is long. writing_s:
    for how long one of its clips has been encoded or stored. measuring: the section whose clip step has not
    returned its values for this long, and the row of the clip.
    """

    rendered: tuple[StoredRow, ...] = ()
    failed: tuple[Failed, ...] = ()
    saved: tuple[str, ...] = ()
    handed_back: tuple[str, ...] = ()
    encoded: tuple[str, ...] = ()
    is_leaving: bool = False
    remarks: tuple[Remark, ...] = ()
    audited: tuple[Audited, ...] = ()
    prompt_lengths: bytes | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    still_s: float = 0.0
    store_silent_s: float = 0.0
    writing_s: float = 0.0
    measuring: tuple[str, str] | None = None
    rendering: tuple[str, ...] = ()
