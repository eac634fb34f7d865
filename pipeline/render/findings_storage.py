"""What was measured of calls that look alike, kept in this machine's cache folder and in the output, if any.

Hints: sizes to begin with, and modules to pin in any case. Whoever uses them proves the rest on rows of its
own, so that a wrong one, or one that somebody made up, costs time and no bit. Whatever goes wrong with a
place costs another search and nothing else: it is logged, and the place left alone from then on.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from framefleet.pipeline.errors import FramefleetError, JobError
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.guards.strict_model import Strict
from framefleet.pipeline.metrics import Spending
from framefleet.pipeline.model.class_cache import cache_folder
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.model.specs.dtypes import canonical_dtype
from framefleet.pipeline.outputs.layout import PROBES
from framefleet.pipeline.outputs.stores.retries import Soon
from framefleet.pipeline.outputs.stores.store import Store, read_as
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.identity import input_shape

# A shape has about a dozen sizes and a plan for each and each mix of LoRAs; a network some thousand modules.
MAX_FILE_BYTES = 2**20

NumRows = Annotated[int, Field(ge=2, le=2**16)]
Worth = Literal["pays", "slow", "inexact"]

log = logging.getLogger(__name__)
# How long the end of a rendering waits for a slow store.
_PATIENCE_S = 5.0


class BatchSize(Strict):
    """How long a forward of this many rows takes, and what follows: used, not worth it, or never exact."""

    rows: NumRows
    seconds: Annotated[float, Field(gt=0)]
    verdict: Worth


class Pins(Strict):
    """Which modules went row by row in exact forwards of this many rows."""

    rows: NumRows
    loras: list[str]  # that some of the rows use
    differing: list[str]  # those that not all rows use alike
    axes: list[int | None]  # along which the rows were joined, leaf by leaf
    modules: list[str]


class RowMemory(Strict):
    """What one row held on a GPU, as a rehearsal measured it."""

    machine: str  # the GPU's name, and torch's version
    peak_bytes: Annotated[int, Field(gt=0)]  # at most, those of the model included
    held_bytes: Annotated[int, Field(ge=0)]  # of the model
    step_bytes: Annotated[int, Field(ge=0)]  # more, in one forward of a denoiser; 0 where that is not known
    step_values: Annotated[int, Field(gt=0)]  # in the tensors that it was called with


class Found(Strict):
    """Measurements, once for each number of rows; pins also for each mix of LoRAs, memory per machine."""

    format: Literal[1] = 1
    sizes: list[BatchSize] = Field(default_factory=list)
    pins: list[Pins] = Field(default_factory=list)
    memory: list[RowMemory] = Field(default_factory=list)


_FOUND = TypeAdapter(Found)


def united(older: Found, newer: Found) -> Found:
    """Return what both say; where they differ, what the newer one says."""
    sizes = {size.rows: size for size in (*older.sizes, *newer.sizes)}
    pins = {(p.rows, *p.loras, None, *p.differing): p for p in (*older.pins, *newer.pins)}
    memory = {row.machine: row for row in (*older.memory, *newer.memory)}
    return Found(
        sizes=[sizes[rows] for rows in sorted(sizes)], pins=list(pins.values()), memory=list(memory.values())
    )


def memory_name(model_digest: str, settings: ModelSettings, request: Request) -> str:
    """Return the name under which a request's memory is kept, see `Places`: by model, options and shape."""
    options = settings.options.model_dump(mode="json")
    if settings.placement:  # what the first of its devices holds
        options |= {"placement": settings.placement.model_dump(mode="json")}
    conditions = [model_digest, canonical_dtype(settings.dtype), options, input_shape(request)]
    return f"memory/{hashlib.sha256(canonical_json(conditions).encode()).hexdigest()[:32]}"


def to_bytes(found: Found) -> bytes:
    return canonical_json(found.model_dump()).encode()


class Places:
    """Read one after another until one knows; all are written. Of several writers, the last wins."""

    def __init__(self, output: Store | None = None, spending: Spending = contextlib.nullcontext) -> None:
        stores = [(Store(str(cache_folder() / PROBES.lstrip("."))), "")]
        if output is not None:
            stores.append((output, f"{PROBES}/"))
        self._stores = stores
        self.num_confirmed = 0  # batch sizes that were read here, and proven
        self._soon = Soon("probes-read", spending)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="probes")
        self._waiting: list[Future[None]] = []

    def read(self, name: str) -> Found | None:
        """Return what is known under a name; None if nothing is, or the file is damaged or late."""
        return self._soon.ask(
            lambda: next(filter(None, (self._read(*place, name) for place in list(self._stores))), None)
        )

    def keep(self, name: str, found: Found) -> None:
        """Write it soon, next to what others measured."""
        self._waiting = [future for future in self._waiting if not future.done()]
        self._waiting.append(self._writer.submit(self._write, name, found))

    def finish(self) -> None:
        """Wait for what is being written, for a while."""
        wait(self._waiting, _PATIENCE_S)

    def _read(self, store: Store, folder: str, name: str) -> Found | None:
        path = f"{folder}{name}.json"
        try:
            content = store.read(path, MAX_FILE_BYTES + 1)
            return read_as(_FOUND, content, store.url_of(path), fix="delete it")
        except FileNotFoundError:
            return None
        except JobError as error:
            log.info("%s; it is found anew", error.problem)
        except FramefleetError as error:
            self._leave(store, error)
        return None

    def _write(self, name: str, found: Found) -> None:
        for store, folder in list(self._stores):
            there = self._read(store, folder, name) or Found()
            if (both := united(there, found)) == there:
                continue
            if len(content := to_bytes(both)) > MAX_FILE_BYTES:
                content = to_bytes(found)
            try:
                store.write(f"{folder}{name}.json", content)
            except FramefleetError as error:
                self._leave(store, error)

    def _leave(self, store: Store, error: FramefleetError) -> None:
        log.info("batch sizes are not kept in %s: %s", store.url_of(""), error.problem)
        self._stores = [place for place in self._stores if place[0] is not store]
