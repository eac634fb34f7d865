"""A job's `engine:`, which turns requests into clips without a model on this machine; plugins add engines.

An engine renders elsewhere, e.g. on servers. Each thread of a worker gives it one row at a time. The worker
loads no model and does not import torch.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from framefleet.pipeline.errors import EndpointError, FramefleetError, JobError, shown
from framefleet.pipeline.guards.json_text import canonical_json, parse_json
from framefleet.pipeline.guards.mistakes import did_you_mean, nearest, settings_of
from framefleet.pipeline.guards.strict_model import NonEmpty, Strict
from framefleet.pipeline.model.families.registry import family_of
from framefleet.pipeline.model.sources.folder_source import FolderSource
from framefleet.pipeline.model.sources.weights import Weights
from framefleet.pipeline.model.specs.signature import Parameter
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.outputs.clips import SentFile
from framefleet.pipeline.outputs.frames.frames import Pictures
from framefleet.pipeline.outputs.frames.result import Audio
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.plugin import by_name, inner_outputs
from framefleet.pipeline.request import Request

PAID = "engine"  # folder of an output: files of engines with {"cost": ...}, what a process has paid


class Halted(Exception):
    """Raised when no further row can be started; rows under way go on.

    why: "spent" for the budget; "job" or "service" for what is at fault.
    """

    def __init__(self, problem: str, fix: str, why: Literal["spent", "job", "service"]) -> None:
        super().__init__(problem, fix, why)
        self.problem, self.fix, self.why = problem, fix, why

    @property
    def error(self) -> FramefleetError | None:
        """What the run raises at its end; None if the budget is spent, which is not an error."""
        kinds = {"job": JobError, "service": EndpointError}
        return kinds[self.why](self.problem, self.fix) if self.why in kinds else None


class Left(Exception):
    """Raised by `EngineRow.wait` if this run must stop: another run continues from what `keep` stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRow:
    """A row that an engine renders, and what the engine may call meanwhile, from the row's own thread."""

    row_id: str
    request: Request
    kept: Mapping[str, Any] | None  # what `keep` stored last, maybe in an earlier run
    keep: Callable[[Mapping[str, Any]], None]  # stores JSON values in the output, for a later attempt
    read: Callable[[str], bytes]  # the content of an input that the row names, by its `uri`
    wait: Callable[[float], None]  # seconds; raises Left if this run must stop
    say: Callable[[str], None]  # logs a line about the row, also in the output's logs/
    # To call before decoding: waits for a place in memory. Raises Left if the row is no longer wanted.
    make_room: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineClip:
    """What an engine made of a row."""

    frames: Pictures
    fps: float | None = None  # None for an image
    audio: Audio | None = None
    sent: SentFile | None = None  # the file they came in; stored unchanged if it has the job's `media.format`
    environment: Mapping[str, str | int | float] = field(default_factory=dict)  # where it was made


class EngineSession:
    """An engine at work, in one process. `render` is called from several threads at once."""

    num_parallel: int = 1  # rows at once

    def room(self) -> int:
        """Return how many rows could be under way now, including those that already are."""
        return self.num_parallel

    def render(self, row: EngineRow) -> EngineClip:
        """Return a row's clip.

        Raises RowError for a row that can never be rendered, Halted, Left, or any other error for a row that
        can be tried again.
        """
        raise NotImplementedError

    def figures(self) -> Mapping[str, float]:
        """Return the session's counts, by keys of `pipeline/metrics.py`."""
        return {}

    def close(self) -> None:
        """End what the session has started. Called when no row is under way any more."""


class Engine(Strict):
    """Renders in place of a model on this machine. Plugins add subclasses, see `Plugin.engines`."""

    # Number of processes, unless the job sets it: one, which has all threads.
    workers: ClassVar[int] = 1
    type: str = Field(description="videos_api, images_api, or a type of a plugin.")
    model: NonEmpty = Field(description="Name of the model on the servers.")
    license: NonEmpty | None = Field(default=None, description="License of its clips, for records.")

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide clips, as JSON: they are part of every row's identity."""
        return {"type": self.type, "model": self.model}

    @abstractmethod
    def spec(self) -> PipelineSpec:
        """Return what rows may ask for. Raises UserError if it is already clear that it cannot render."""

    def cost(self, request: Request) -> float:
        """Return what a row's clip costs, by the job's price. Raises RowError if that is not known."""
        return 0.0

    @property
    def limit(self) -> float | None:
        """What all runs of the job may cost; None: anything."""
        return None

    @property
    def places(self) -> int:
        """How many rows one process can have under way, for the size of leases."""
        return 64

    @abstractmethod
    def start(self, store: Store) -> EngineSession:
        """Return a session. store: the job's output."""

    @property
    def digest(self) -> str:
        return hashlib.sha256(canonical_json(self.deciding()).encode()).hexdigest()

    @property
    def name(self) -> str:
        """What records call the model."""
        return f"{self.type}:{self.model}"

    def weights(self) -> Weights:
        """Return weights without files, because this machine has none of the model."""
        return Weights(
            source=_Nowhere(str(Path(__file__).parent)),
            class_name=self.type,
            components=(),
            files=(),
            expected={"engine": self.digest},
            lock=None,
        )


class _Nowhere(FolderSource):
    """A folder from which nothing is read."""

    files: Mapping[str, Any] = {}


def engine_of(value: Any) -> Engine:
    """Return the engine that a job describes. Raises UserError."""
    if isinstance(value, Engine):
        return value
    kinds = by_name("engines")
    if not isinstance(value, Mapping):
        problem = f"engine is {shown(value)}, and must be a mapping with type and model"
        raise JobError(problem, "write e.g. {type: videos_api, urls: [http://HOST:8000/v1], model: NAME}")
    kind = value.get("type") or ""
    if not isinstance(kind, str):
        raise JobError(f"engine.type is {shown(kind)}", f"use {' or '.join(kinds)}")
    if kind and kind not in kinds:
        raise JobError(f"engine.type is {kind!r}, but there is no such engine", did_you_mean(kind, kinds))
    made: type[Engine] = kinds.get(kind, next(iter(kinds.values())))()
    if unknown := next((key for key in value if key not in made.model_fields), None):
        near = nearest(str(unknown), made.model_fields)
        fix = f"did you mean `engine.{near[0]}`?" if near else f"use {', '.join(made.model_fields)}"
        raise JobError(f"unknown key `engine.{unknown}`", fix)
    if not kind:
        raise JobError("engine.type is missing", did_you_mean(kind, kinds))
    return settings_of(made, value, place="engine", fix="see docs/reference/job.md")


def paid_before(store: Store, *, but: str = "") -> float:
    """Return what all processes of all runs have paid for an output, and for its inner and outer outputs.

    but: a path to leave out. Raises JobError if a file is damaged.
    """
    is_inner = store.url_of("").rpartition("/")[2] in inner_outputs()
    outer, total = store.above() if is_inner else store, 0.0
    for one in (outer, *map(outer.below, inner_outputs())):
        for path in one.list(PAID):
            with suppress(FileNotFoundError):
                try:
                    total += 0.0 if path == but else float(parse_json(one.read(path))["cost"])
                except (ValueError, LookupError, TypeError):
                    problem = f"{one.url_of(path)} is damaged, and it says what was paid"
                    raise JobError(problem, 'write {"cost": ...} into it') from None
    return total


def engine_spec(
    name: str,
    kind: Literal["video", "image"],
    parameters: Mapping[str, Parameter],
    *,
    row_rules: str | None = None,
) -> PipelineSpec:
    """Return the spec of an engine from what its rows may ask for. row_rules: as `Family.row_rules`."""
    return PipelineSpec(
        class_name=name,
        kind=kind,
        parameters=parameters,
        family=replace(family_of(name), row_rules=row_rules),
        configs={"index": {}},
        returns=frozenset({"frames"}),
    )
