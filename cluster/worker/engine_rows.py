"""Rows that an engine renders, each in its own thread: a worker uses this instead of a `Renderer`."""

from __future__ import annotations

import json
import logging
import platform
import socket
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from safetensors.numpy import save

from framefleet.cluster.worker.checkpointer import checkpoint_path
from framefleet.cluster.worker.messages import WorkerSetup
from framefleet.pipeline.engine import Engine, EngineClip, EngineRow, Halted, Left
from framefleet.pipeline.errors import ModelError, RowError
from framefleet.pipeline.guards.json_text import parse_json
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.model.sources.headers import read_header
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.outputs.clips import Clip, Failure, Outcome
from framefleet.pipeline.outputs.frames.frames import Pixels
from framefleet.pipeline.outputs.frames.result import audio_sha256
from framefleet.pipeline.request import Request, inputs_in
from framefleet.pipeline.rows.inputs.access import naming
from framefleet.pipeline.rows.inputs.arguments import checked_content

log = logging.getLogger(__name__)
_LOOK_S = 0.5  # the longest wait for a row to end, before new ones are looked for
_KEPT = "engine"  # in the metadata of a checkpoint without tensors
_MAX_KEPT_BYTES = 1 << 16
_MOST_DECODED = 8  # clips in memory; 81 frames of 720p take a quarter of a gigabyte


@dataclass(slots=True)
class _Work:
    """A row under way."""

    request: Request
    since: float = field(default_factory=time.monotonic)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    is_left: threading.Event = field(default_factory=threading.Event)
    is_dropped: bool = False  # nobody wants its clip any more, even if that is paid
    is_decoded: bool = False  # it has one of the places for clips in memory


@dataclass(frozen=True, slots=True)
class LeftRow:
    """A row that was left; what is needed to continue it is stored already."""

    row_id: str
    checkpoint: None = None


class EngineClock:
    """Where the time goes in the thread that gives rows to an engine: every second has one cause."""

    def __init__(self) -> None:
        self._lock, self._began = threading.Lock(), time.perf_counter()
        self._since, self._cause = self._began, "engine"
        self._total: defaultdict[str, float] = defaultdict(float)

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self._began

    def still_s(self) -> float:
        """Return 0: an engine bounds the time of its rows itself."""
        return 0.0

    @contextmanager
    def spending(self, cause: str) -> Iterator[None]:
        before = self._turn(cause)
        try:
            yield
        finally:
            self._turn(before)

    def seconds(self) -> dict[str, float]:
        self._turn(self._cause)
        with self._lock:
            return dict(self._total)

    def _turn(self, cause: str) -> str:
        with self._lock:
            now, before = time.perf_counter(), self._cause
            self._total[before] += now - self._since
            self._since, self._cause = now, cause
        return before


class EngineModel:
    """Describes an engine, as a worker describes a model that it has loaded."""

    def __init__(self, engine: Engine, files: Mapping[str, str]) -> None:
        self.digest = model_digest(files or {"engine": engine.digest})
        self.environment = {
            "device": "engine",
            "engine": engine.type,
            "cpu": engine.name,  # where records of other rows name their processor
            "python": platform.python_version(),
            "hostname": socket.gethostname(),
        }


class EngineRows:
    """Renders rows with an engine, as a `Renderer` does with a model. Not for several threads at once."""

    num_remembered = room_bytes = 0

    def __init__(self, setup: WorkerSetup, note_kept: Callable[[str, bool, bool], None]) -> None:
        """note_kept: called from any thread, once what is needed to continue a row is stored."""
        engine = setup.model.engine
        assert engine is not None, "workers of other jobs have a Renderer"
        self._setup, self._note_kept = setup, note_kept
        self.model, self.clock = EngineModel(engine, setup.model_files), EngineClock()
        self._numerics = setup.model.numerics(setup.batching.mode)
        self._session = engine.start(setup.store)
        self._news = threading.Condition()
        self._rows: dict[str, _Work] = {}
        self._ended: list[Outcome | LeftRow] = []
        self._halt: Halted | None = None
        self._num_places = _MOST_DECODED  # that are free

    @property
    def num_active(self) -> int:
        return len(self._rows)

    @property
    def room(self) -> int:
        return 0 if self._halt else self._session.room() - len(self._rows)

    @property
    def halt(self) -> Halted | None:
        """Why no more rows begin. If all is spent: once those under way, which are paid, have ended."""
        return None if self._halt and self._halt.why == "spent" and self._rows else self._halt

    def figures(self) -> Mapping[str, float]:
        return self._session.figures()

    def read_ahead(self, _: Request) -> list[Any]:
        return []

    def take_audits(self) -> list[Any]:
        return []

    def save(self) -> list[Any]:
        return []

    def rehearse(self, _: Request) -> None: ...

    def set_apart(self, _: str) -> None: ...

    def submit(self, request: Request, row_id: str, _: bytes | None = None, *, is_audited: bool) -> None:
        self._rows[row_id] = work = _Work(request)
        threading.Thread(target=self._run, args=(row_id, work), name=f"row-{row_id[:8]}", daemon=True).start()

    def step(self) -> list[Outcome | LeftRow]:
        """Return the rows that have ended, after waiting for the first one."""
        with self._news:
            self._news.wait_for(lambda: self._ended, timeout=_LOOK_S)
            ended, self._ended = self._ended, []
        for outcome in ended:
            self._end(outcome.row_id)
        return ended

    def _end(self, row_id: str) -> None:
        if self._rows.pop(row_id).is_decoded:
            with self._news:
                self._num_places += 1
                self._news.notify_all()

    def drain(self) -> Iterator[Outcome | LeftRow]:
        """Stop all rows as soon as they can be left, and yield each when it has ended."""
        for work in self._rows.values():
            work.is_left.set()
        while self._rows:
            yield from self.step()
        self._session.close()

    def drop(self, row_id: str) -> None:
        """Stop a row, and report nothing more about it."""
        work = self._rows[row_id]
        work.is_left.set()
        with self._news:
            work.is_dropped = True
            self._news.notify_all()
            self._news.wait_for(lambda: any(outcome.row_id == row_id for outcome in self._ended))
            self._ended = [outcome for outcome in self._ended if outcome.row_id != row_id]
        self._end(row_id)

    def _run(self, row_id: str, work: _Work) -> None:
        outcome: Outcome | LeftRow
        try:
            row = EngineRow(
                row_id=row_id,
                request=work.request,
                kept=self._kept(row_id),
                keep=partial(self._keep, row_id),
                read=partial(self._read, work.request),
                wait=partial(_wait, work.is_left),
                say=partial(log.warning, extra={"row_id": row_id}),
                make_room=partial(self._make_room, work),
            )
            outcome = self._clip(row_id, work, self._session.render(row))
        except Left:
            outcome = LeftRow(row_id)
        except Halted as error:
            self._halt = Halted(public_text(error.problem), error.fix, error.why)
            outcome = LeftRow(row_id)
        except Exception as error:  # the row's own failure; the driver decides
            text = traceback.format_exc()
            outcome = Failure(row_id=row_id, request=work.request, error=error, traceback=text)
        except BaseException as error:  # a stranger's code may raise anything, and its row must end
            problem = RowError(f"its engine raised {type(error).__name__}: {error}", "correct the engine")
            text = traceback.format_exc()
            outcome = Failure(row_id=row_id, request=work.request, error=problem, traceback=text)
        with self._news:
            self._ended.append(outcome)
            self._news.notify_all()

    def _make_room(self, work: _Work) -> None:
        """Wait for a place. Raises Left if the row is dropped: nobody frees places while `drop` waits."""
        with self._news:
            if work.is_decoded:
                return
            self._news.wait_for(lambda: work.is_dropped or self._num_places)
            if work.is_dropped:
                raise Left
            self._num_places -= 1
            work.is_decoded = True

    def _clip(self, row_id: str, work: _Work, made: EngineClip) -> Clip:
        model, took_s = self._setup.model, time.monotonic() - work.since
        return Clip(
            row_id=row_id,
            request=work.request,
            pixels=Pixels.of(made.frames),
            audio=made.audio,
            audio_sha256=None if made.audio is None else audio_sha256(made.audio),
            native_fps=made.fps,
            sent=made.sent,
            model=model.name,
            model_digest=self.model.digest,
            license=model.license,
            numerics=self._numerics,
            # All of its time counts as the model's: a server does not say how it spends it.
            seconds={"encode_s": 0.0, "denoise_s": took_s, "decode_s": 0.0, "compute_s": took_s},
            batch_size=1.0,
            peak_memory_bytes=0,
            environment={**self.model.environment, **made.environment},
            started_at=work.started_at,
        )

    def _read(self, request: Request, uri: str) -> bytes:
        """Return an input that a row names. Raises InputError where it is not what was checked."""
        named = [(name, one) for name, value in request.arguments.items() for one in inputs_in(value)]
        name, value = next(pair for pair in named if pair[1]["uri"] == uri)
        with naming(name, uri):
            return checked_content(value, self._setup.inputs.read)

    def _keep(self, row_id: str, values: Mapping[str, Any]) -> None:
        content = save({}, {_KEPT: json.dumps(values, allow_nan=False)})
        self._setup.store.write(checkpoint_path(row_id), content)
        self._note_kept(row_id, True, False)

    def _kept(self, row_id: str) -> Mapping[str, Any] | None:
        """Return what was stored of a row, also by a worker that died before it could report that."""
        try:
            content = self._setup.store.read(checkpoint_path(row_id), _MAX_KEPT_BYTES)
        except FileNotFoundError:
            return None
        try:
            _, notes = read_header(lambda count: content[:count], checkpoint_path(row_id), len(content))
            state = parse_json(notes[_KEPT])
        except (ModelError, ValueError, LookupError, TypeError):
            state = None
        if not isinstance(state, dict):
            log.warning("row %s: its stored state is damaged", row_id, extra={"row_id": row_id})
            return None
        return state


def _wait(is_left: threading.Event, seconds: float) -> None:
    if is_left.wait(max(0.0, seconds)):
        raise Left
