"""Rows wait here, are rendered, and leave, as a clip or with the reason why there is none.

Rows that failed when batched run alone. Plain calls do too, and so do all rows where a network keeps state.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Collection, Container, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from framefleet.pipeline.errors import OutOfMemory, message_of
from framefleet.pipeline.hooks.adapters import RowAdapters
from framefleet.pipeline.hooks.global_draws import GlobalDraws
from framefleet.pipeline.memory import is_out_of_memory, peak_memory_bytes
from framefleet.pipeline.model.lora import adapters_in
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.outputs.clips import Clip, Failure, Outcome
from framefleet.pipeline.outputs.frames.result import Rendered, audio_sha256
from framefleet.pipeline.render.audit.verdict import kind_of
from framefleet.pipeline.render.checkpoints.checkpoint import HalfDone, RowCheckpoint
from framefleet.pipeline.render.fused.batcher import RowTask
from framefleet.pipeline.render.fused.joint_calls import JointCall
from framefleet.pipeline.render.row_seconds import ClipSeconds, RowSeconds
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.identity import Identity
from framefleet.pipeline.rows.prompt_lengths import PromptReading


@dataclass(slots=True, eq=False)
class RenderRow:
    """A request on its way to a clip."""

    row_id: str
    request: Request
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: RowSeconds = field(default_factory=RowSeconds)  # spent on it, by what
    is_alone: bool = False  # no other row may be under way
    is_plain: bool = False  # it is rendered by a plain call
    pipe: Any = None  # its own, once it is under way
    draws: GlobalDraws = field(default_factory=GlobalDraws)  # what it draws from global generators
    was_batched: bool = False  # other rows were under way together with it
    checkpoint: RowCheckpoint | bytes | None = None  # of an earlier attempt, from which it continues
    earlier: Mapping[str, float] = field(default_factory=dict)  # the seconds that it took there
    compute_s: float = 0.0  # its share of the model's time here, all beginnings included
    worked_s: float = 0.0  # see `Charges`
    joint: JointCall | None = None  # of its pipeline, if that renders other rows too
    adapters: RowAdapters = field(init=False)  # its LoRAs
    kind: str = field(init=False)  # what an audit of it speaks for

    def __post_init__(self) -> None:
        self.adapters = RowAdapters(adapters_in(self.request.arguments))
        self.kind = kind_of(self.request)


class RowQueue:
    """All rows of a renderer. under_way: by the task that renders each."""

    def __init__(self, apart: Container[str] = frozenset(), *, all_alone: bool = False) -> None:
        """apart: kinds whose rows are plain calls; may grow. all_alone: each row is rendered alone."""
        self._apart = apart
        self.all_alone = all_alone
        self.under_way: dict[RowTask, RenderRow] = {}
        self._waiting: deque[RenderRow] = deque()
        self._alone: deque[RenderRow] = deque()
        self._limits: dict[str, int] = {}  # by kind: how many rows may be under way

    def __len__(self) -> int:
        return len(self.under_way) + len(self._waiting) + len(self._alone)

    @property
    def waiting(self) -> Iterator[RenderRow]:
        yield from self._alone
        yield from self._waiting

    def add(self, row: RenderRow) -> None:
        row.is_plain = row.is_plain or row.kind in self._apart
        row.is_alone = row.is_alone or row.is_plain or self.all_alone
        (self._alone if row.is_alone else self._waiting).append(row)

    def start(self, task: RowTask, row: RenderRow) -> None:
        for other in self.under_way.values():
            row.was_batched = other.was_batched = True
        self.under_way[task] = row

    def add_again(self, row: RenderRow, *, is_alone: bool = False, is_plain: bool = False) -> None:
        """Queue a row to start again. is_alone: render nothing else meanwhile."""
        again = _from_its_beginning(row)
        again.is_alone, again.is_plain = again.is_alone or is_alone or is_plain, is_plain
        self.add(again)

    def take(self, capacity: int) -> RenderRow | None:
        """Return the row that starts next; None while there is none, or no room for it."""
        present = [row for task, row in self.under_way.items() if not task.is_away]
        if self._alone and not present:
            return self._alone.popleft()
        if self._alone or any(row.is_alone for row in present):
            return None
        rows = [*self.under_way.values(), *islice(self._waiting, 1)]
        limit = min([capacity, *(self._limits.get(row.kind, capacity) for row in rows)])
        return self._waiting.popleft() if self._waiting and len(self.under_way) < limit else None

    def room(self, row: RenderRow, capacity: int) -> int:
        """Return how many rows of this one's kind may start now."""
        return min(capacity, self._limits.get(row.kind, capacity)) - len(self.under_way)

    def take_out(self, rows: Collection[RenderRow]) -> None:
        """Let these rows wait no longer."""
        self._waiting = deque(row for row in self._waiting if row not in rows)

    def has_others(self, tasks: Collection[RowTask]) -> bool:
        """Whether rows besides these are under way, and not away."""
        return any(not task.is_away for task in self.under_way.keys() - set(tasks))

    def halve(self, kind: str) -> None:
        """Memory ran out while a row of this kind ran: from now on have half as many under way."""
        half = max(1, len(self.under_way) // 2)
        self._limits[kind] = min(half, self._limits.get(kind, half))

    def put_back(self) -> None:
        """Restart the rows under way, before those that wait; each alone if its kind requires that by now."""
        again = [*map(_from_its_beginning, self.under_way.values()), *self._waiting]
        self.under_way.clear()
        self._waiting.clear()
        for row in again:
            self.add(row)

    def drop(self, row_id: str) -> list[RowTask]:
        """Forget a row; return its task, if it is under way."""
        self._waiting = deque(row for row in self._waiting if row.row_id != row_id)
        self._alone = deque(row for row in self._alone if row.row_id != row_id)
        tasks = [task for task, row in self.under_way.items() if row.row_id == row_id]
        for task in tasks:
            del self.under_way[task]
        return tasks

    def clear(self) -> None:
        for rows in (self.under_way, self._waiting, self._alone):
            rows.clear()


def _from_its_beginning(row: RenderRow) -> RenderRow:
    again = RenderRow(row.row_id, row.request, row.started_at, is_alone=row.is_alone, is_plain=row.is_plain)
    again.checkpoint = row.checkpoint
    if not row.checkpoint:  # which is made as a row fails, and says what was spent
        again.compute_s = row.compute_s + row.earlier.get("compute_s", 0.0)
    return again


def clip_of(
    task: RowTask,
    row: RenderRow,
    model: Model,
    identity: Identity,
    reading: PromptReading | None,
    *,
    idle: Mapping[str, float],
) -> Clip:
    """Return the clip of a row that was rendered. task: which rendered it. idle: since the clip before."""
    rendered: Rendered = task.value
    audio = rendered.audio
    attention = {"attention": model.attention.name} if model.attention else {}
    return Clip(
        row_id=row.row_id,
        request=row.request,
        pixels=rendered.pixels,
        audio=audio,
        audio_sha256=None if audio is None else audio_sha256(audio),
        extras=rendered.extras,
        native_fps=model.spec.fps_of(row.request.arguments),
        model=model.settings.name,
        model_digest=identity.model_digest,
        license=model.settings.license,
        numerics=identity.numerics,
        seconds=seconds_of(task, row),
        idle=idle,
        batch_size=task.batch_size,
        peak_memory_bytes=peak_memory_bytes(model.environment["device"]),
        environment={**model.environment, **attention},
        started_at=row.started_at,
        was_batched=not row.is_plain,
        num_prompt_tokens=reading.num_tokens if reading else None,
        is_prompt_cut=reading.is_cut if reading else None,
    )


def seconds_of(task: RowTask, row: RenderRow) -> ClipSeconds:
    """Return what a row has taken so far, in other processes too."""
    others = {"encode_s": 0.0, "decode_s": 0.0, "compute_s": row.compute_s, **task.seconds}
    others["denoise_s"] = task.last_forward_at - task.first_forward_at
    others = {name: spent + row.earlier.get(name, 0.0) for name, spent in others.items()}
    return ClipSeconds(row.seconds, others)


def failure_of(error: Exception, row: RenderRow, half_done: HalfDone | None = None) -> Failure:
    """Return the report of a row that failed. The error loses its frames. half_done: its checkpoint."""
    text = _dropped_frames(error)
    if is_out_of_memory(error):
        error = OutOfMemory(
            f"one row alone does not fit: {message_of(error)}",
            "render smaller, or shorter, or in bf16; or set model.offload or model.vae_tiling",
        )
    return Failure(row_id=row.row_id, request=row.request, error=error, traceback=text, half_done=half_done)


def with_frames(outcome: Outcome) -> Outcome:
    """Wait for a clip's frames; return the clip, or a Failure if there are none to keep."""
    try:
        _ = outcome.frames if isinstance(outcome, Clip) else None
    except Exception as error:  # e.g. of a user's recipe, whose last step makes them
        text = _dropped_frames(error)
        return Failure(row_id=outcome.row_id, request=outcome.request, error=error, traceback=text)
    return outcome


def _dropped_frames(error: BaseException | None) -> str:
    """Return an error's traceback, and have it forget the frames, which hold the row's tensors."""
    text = "".join(traceback.format_exception(error))
    links, seen = [error], set[int]()
    while links:
        link = links.pop()
        if link is None or id(link) in seen:  # a chain of errors may be a ring
            continue
        seen.add(id(link))
        link.__traceback__ = None
        links += [link.__cause__, link.__context__, *getattr(link, "exceptions", ())]
    return text
