"""What is known of calls that look alike, from this process and from others under the same conditions.

It is kept in this machine's cache folder and in the output, if any, as hints: sizes to begin with, and
modules to pin in any case. Whoever uses them proves the rest on rows of its own, so that a wrong one, or one
that somebody made up, costs time and no bit. Whatever goes wrong with a place costs another search and
nothing else: it is logged, and the place left alone from then on.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, TypeAdapter

from framefleet.pipeline.errors import FramefleetError, JobError
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.guards.strict_model import Strict
from framefleet.pipeline.metrics import Spending
from framefleet.pipeline.model.class_cache import cache_folder
from framefleet.pipeline.model.environment import lines_beginning
from framefleet.pipeline.model.model import Model, ModelSettings
from framefleet.pipeline.model.sources.integrity import model_digest
from framefleet.pipeline.model.specs.dtypes import canonical_dtype
from framefleet.pipeline.outputs.layout import PROBES
from framefleet.pipeline.outputs.stores.retries import Soon
from framefleet.pipeline.outputs.stores.store import Store, read_as
from framefleet.pipeline.render.fused.batching import Batching, Sizes
from framefleet.pipeline.render.fused.calls import Call
from framefleet.pipeline.render.fused.pins import Kind
from framefleet.pipeline.request import Request
from framefleet.pipeline.rows.identity import input_shape

log = logging.getLogger(__name__)

# A shape has about a dozen sizes and a plan for each and each mix of LoRAs; a network some thousand modules.
MAX_FILE_BYTES = 2**20

NumRows = Annotated[int, Field(ge=2, le=2**16)]
Worth = Literal["pays", "slow", "inexact"]

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
    differing: list[str]  # of these, such as not all rows use alike
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


# Looks of which it is held what is known; one that is forgotten is read again.
_HELD = 4096
# Of an object that only this process has.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
# What chooses kernels from outside. Which of several equal GPUs a process has is not among it.
_PREFIXES = ("ATEN_", "CUBLAS", "CUDNN_", "DNNL_", "KMP_", "MKL_", "NVIDIA_TF32", "OMP_", "ONEDNN_")
_PREFIXES_OF_TORCH = ("PYTORCH_", "TORCH_", "TORCHINDUCTOR_")
# Where compiled code lies, and not what it is. Torch sets it itself, in one process sooner than in another.
_PLACE = "TORCHINDUCTOR_CACHE_DIR"


class Findings:
    """What is known of one model in its surroundings. Without places, nothing is known or kept."""

    def __init__(
        self,
        places: Places | None = None,
        surroundings: str = "",
        num_fitting: Callable[[Call | None], int | None] = lambda _: None,
    ) -> None:
        """num_fitting: how many rows a forward like this call has memory for, if that is known."""
        self.num_fitting = num_fitting
        self._places = places
        self._surroundings = surroundings
        self._known: OrderedDict[str, Found] = OrderedDict()
        self._own: dict[str, Found] = {}  # measured or proven here: only this is handed on

    def tell(self, look: Hashable, sizes: Sizes) -> bool:
        """Tell `sizes` what is known of calls that look like this; return whether anything is."""
        batch_sizes = self._of(look).sizes
        for size in batch_sizes:
            if size.verdict == "pays":
                sizes.accept(size.rows, seconds=size.seconds)
            else:
                sizes.refuse(size.rows, is_final=size.verdict == "inexact")
        return bool(batch_sizes)

    def pins(self, kind: Kind) -> frozenset[str] | None:
        """Return the modules that were pinned in exact forwards of a kind; None if none is known."""
        for pins in self._of(kind.look).pins:
            if pins == _pins_of(kind, pins.modules):
                return frozenset(pins.modules)
        return None

    def note(self, kind: Kind, verdict: Worth, *, seconds: float, pins: Collection[str] | None) -> None:
        """Keep what was measured for a kind. pins: the modules that make it exact, if any do."""
        size = BatchSize(rows=kind.rows, seconds=seconds, verdict=verdict)
        self._keep(kind, size, [] if pins is None else [_pins_of(kind, pins)])

    def confirm(self, kind: Kind, pins: Collection[str]) -> None:
        """Keep what was known of a kind, with the pins that were proven just now."""
        size = next((size for size in self._of(kind.look).sizes if size.rows == kind.rows), None)
        if size and self._places:
            self._places.num_confirmed += 1
            self._keep(kind, size, [_pins_of(kind, pins)])

    def _of(self, look: Hashable) -> Found:
        name = self._name(look)
        if name is None or self._places is None:
            return Found()
        if name not in self._known:
            self._known[name] = self._places.read(name) or Found()
            if len(self._known) > _HELD:
                self._own.pop(self._known.popitem(last=False)[0], None)
        return self._known[name]

    def _keep(self, kind: Kind, size: BatchSize, pins: list[Pins]) -> None:
        findings, name = self._of(kind.look), self._name(kind.look)
        if name is None or self._places is None:
            return
        new = Found(sizes=[size], pins=pins)
        self._known[name] = united(findings, new)
        self._own[name] = united(self._own.get(name, Found()), new)
        self._places.keep(name, self._own[name])

    def _name(self, look: Hashable) -> str | None:
        """Return the file name for a look; None for a look that no other process can meet."""
        text = repr(look) if self._places and look is not None else ""
        if not text or _ADDRESS.search(text):
            return None
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{self._surroundings}/{digest[:32]}"


def _pins_of(kind: Kind, modules: Collection[str]) -> Pins:
    return Pins(
        rows=kind.rows,
        loras=sorted(kind.loras),
        differing=sorted(kind.differing),
        axes=list(kind.axes),
        modules=sorted(modules),
    )


def surroundings(model: Model, batching: Batching) -> str:
    """Return the digest of model, LoRAs, options, libraries, device, driver, threads, settings of torch.

    Whatever may matter is in it: what does not match is only found once more.
    """
    conditions = {
        "model": model_digest(model.digests),  # other weights of the same networks have the same plans
        "loras": {name: [lora.sha256, lora.component] for name, lora in model.settings.loras.items()},
        "numerics": model.settings.numerics(batching.mode),
        "min_gain": batching.min_gain,
        "attention": model.attention.name if model.attention else None,
        "environment": dict(model.environment),
        "torch": _settings_of_torch(),
        "processor": lines_beginning("/proc/cpuinfo", ("flags", "Features")),
        "driver": lines_beginning("/proc/driver/nvidia/version", ("NVRM",)),
        "variables": {
            name: value
            for name, value in os.environ.items()
            if name.startswith((*_PREFIXES, *_PREFIXES_OF_TORCH)) and name != _PLACE
        },
    }
    return hashlib.sha256(canonical_json(conditions).encode()).hexdigest()[:32]


def _settings_of_torch() -> list[Any]:
    matmul, cudnn, mkldnn = torch.backends.cuda.matmul, torch.backends.cudnn, torch.backends.mkldnn
    convolutions: Any = cudnn.conv  # type: ignore[attr-defined]
    products: Any = mkldnn.matmul  # type: ignore[attr-defined]
    return [
        torch.__config__.show(),
        torch.__config__.parallel_info(),
        torch.are_deterministic_algorithms_enabled(),
        # `allow_tf32` and `get_float32_matmul_precision` raise where these were set.
        [matmul.fp32_precision, convolutions.fp32_precision, products.fp32_precision],
        [cudnn.benchmark, cudnn.deterministic],
        [matmul.allow_fp16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction],
        [mkldnn.enabled, mkldnn.deterministic],
        str(torch.backends.cuda.preferred_blas_library()),
    ]
