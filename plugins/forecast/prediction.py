"""Predict time, bytes and price of the remaining rows from measurements of some. Plain values only."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle

from rich import box
from rich.table import Table

from framefleet.api.clips import Request
from framefleet.api.commands import duration
from framefleet.api.errors import bytes_text, count_text, rounded
from framefleet.cluster.driver.stop import HOUR_S

# Texts that are counted exactly, in 100 MB. Beyond, the share of new texts is assumed to stay the same.
MAX_TEXTS = 1 << 20
_PER_STRATUM = 8  # rows kept for each number of denoiser calls
# The last records, the gallery, and stopping Ray.
ENDING_S = 3.0


@dataclass(slots=True)
class RowKind:
    """Rows of one shape and recipe, which can share a batch.

    num_calls: of the denoiser, for all rows. strata: by calls per row, the number of such rows and the first
    of them.
    """

    name: str
    num_rows: int = 0
    num_calls: int = 0
    strata: dict[int, tuple[int, list[Request]]] = field(default_factory=dict)

    def add(self, request: Request) -> None:
        calls = calls_of(request)
        self.num_rows += 1
        self.num_calls += calls
        count, sample = self.strata.get(calls, (0, []))
        if len(sample) < _PER_STRATUM:
            sample.append(request)
        self.strata[calls] = (count + 1, sample)

    def sample(self) -> Iterator[Request]:
        """Yield endless rows, in proportion to the strata of the table."""
        sources = {calls: cycle(requests) for calls, (_, requests) in self.strata.items()}
        taken = dict.fromkeys(sources, 0)
        while True:
            most = max(sources, key=lambda calls: self.strata[calls][0] / (taken[calls] + 0.5))
            taken[most] += 1
            yield next(sources[most])


@dataclass(slots=True)
class Kinds:
    """All remaining rows of a lane.

    remembers_texts: whether prompts that several rows share are encoded once.
    """

    remembers_texts: bool = True
    by_name: dict[str, RowKind] = field(default_factory=dict)
    num_rows: int = 0
    _texts: set[int] = field(default_factory=set)
    _num_asked: int = 0

    def add(self, shape: str, request: Request) -> None:
        is_said = request.recipe == "generate" or request.recipe in shape
        name = shape if is_said else f"{request.recipe} {shape}"
        self.by_name.setdefault(name, RowKind(name)).add(request)
        self.num_rows += 1
        if self.remembers_texts and len(self._texts) < MAX_TEXTS:
            self._num_asked += 1
            texts = (request.arguments.get(name) or "" for name in ("prompt", "negative_prompt"))
            self._texts.add(hash(tuple(zlib.crc32(str(text).encode("utf-8", "replace")) for text in texts)))

    @property
    def num_texts(self) -> int:
        """How often a text is new if one worker renders all rows."""
        share = len(self._texts) / self._num_asked if self._num_asked else 1.0
        return round(share * self.num_rows)

    def most_frequent(self, count: int) -> list[RowKind]:
        return sorted(self.by_name.values(), key=lambda kind: -kind.num_calls)[:count]


def calls_of(request: Request) -> int:
    """Return about how often a row calls the denoiser: once per step, and twice with guidance."""
    arguments = request.arguments
    steps = arguments.get("num_inference_steps")
    guidance = arguments.get("guidance_scale")
    is_guided = isinstance(guidance, int | float) and guidance > 1
    return (steps if isinstance(steps, int) and steps > 0 else 1) * (2 if is_guided else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """Wall time and processor time, in seconds. Equal on one core that nothing else uses."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    def __add__(self, other: Took) -> Took:
        return Took(wall_s=self.wall_s + other.wall_s, cpu_s=self.cpu_s + other.cpu_s)

    def __sub__(self, other: Took) -> Took:
        return Took(wall_s=max(0.0, self.wall_s - other.wall_s), cpu_s=max(0.0, self.cpu_s - other.cpu_s))

    def __mul__(self, times: float) -> Took:
        return Took(wall_s=self.wall_s * times, cpu_s=self.cpu_s * times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What rows of one kind took on this machine, batched as in a worker.

    num_rows: in the table. render: per row, in the rendering thread, without encoding texts. write: per row,
    in the background. once: per worker, until it has reached its pace. text: per new text. num_bytes: per
    clip. mean_batch: rows per forward. num_rendered: rows rendered for this measurement. audit: per row; zero
    if rows are not batched.
    """

    name: str
    num_rows: int
    render: Took
    write: Took
    once: Took
    text: Took
    num_bytes: float
    mean_batch: float
    num_rendered: int
    audit: Took = Took()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What rendering the remaining rows would take. elapsed_s: from start to end of the command.

    start_s: part of it until a worker renders. load_s: until a worker that starts later renders (with several
    models, the slowest). worker_s: sum over workers, while they have a model. cpu_s: of their processors.
    num_bytes: of clips. audits_s: part of worker_s. cost: None without a price. num_guessed: rows of kinds
    that were not rendered here. placements: for a job with a placement, seconds of one clip with each type
    and on one device, or why it cannot be rendered.
    """

    num_rows: int
    num_workers: int
    elapsed_s: float
    worker_s: float
    cpu_s: float
    num_bytes: int
    cost: float | None
    num_guessed: int
    kinds: tuple[Tried, ...]
    start_s: float
    load_s: float
    audits_s: float = 0.0
    placements: Mapping[str, float | str] = field(default_factory=dict)

    def shown(self) -> Iterator[str | Table]:
        """Yield what `framefleet plan` prints."""
        table = Table("rendered here", box=box.SIMPLE_HEAD)
        for heading in ("rows", "s per row", "rows per forward", "bytes per clip"):
            table.add_column(heading, justify="right")
        for kind in self.kinds:
            numbers = (f"{kind.num_rendered:,}", rounded(kind.render.wall_s), f"{kind.mean_batch:.1f}")
            table.add_row(kind.name, *numbers, bytes_text(kind.num_bytes))
        yield table
        cost = "" if self.cost is None else f", price {self.cost:,.2f}"
        yield (
            f"predicted: {count_text(self.num_rows, 'row')} in {duration(self.elapsed_s)} with "
            f"{count_text(self.num_workers, 'worker')} as fast as this machine: "
            f"{rounded(self.worker_s / HOUR_S)} worker hours, {bytes_text(self.num_bytes)}{cost}"
        )
        if self.audits_s:
            yield f"audits take {duration(self.audits_s)} of the workers' time"
        one_s = next(iter(self.placements.values()), None)
        for name, result in self.placements.items():
            if isinstance(result, str):
                yield f"1 clip, {name}: {result}"
            elif not isinstance(one_s, float) or result is one_s:
                yield f"1 clip, {name}: {rounded(result)} s"
            else:
                yield f"1 clip, {name}: {rounded(result)} s, {result / one_s:.2f} of the time on one device"
        if self.num_guessed:
            yield f"estimated from the above: {count_text(self.num_guessed, 'row')} of other shapes"


def predict(
    kinds: Sequence[Tried],
    *,
    num_rows: int,
    num_texts: int,
    load: Took,
    num_workers: int,
    num_cores: float,
    price: float | None,
    gpus_per_worker: float = 1.0,
    num_audits: float = 0.0,
) -> Prediction:
    """Predict all rows. kinds: at least one, the most frequent ones; others are estimated from these.

    num_texts: new texts in the whole table. load: time to load the model. num_cores: of this machine; clips
    are written on them, too.
    """
    num_workers = max(1, min(num_workers, num_rows))
    num_tried = sum(kind.num_rows for kind in kinds)
    more = num_rows / num_tried
    render = sum((kind.render * (kind.num_rows * more) for kind in kinds), Took())
    write = sum((kind.write * (kind.num_rows * more) for kind in kinds), Took())
    once = sum((kind.once for kind in kinds), Took())
    # A text is new to each worker that has rows with it.
    text = max((kind.text for kind in kinds), key=lambda took: took.wall_s)
    texts = text * min(num_texts * num_workers, num_rows)
    audits = sum((kind.audit * (num_audits * kind.num_rows / num_tried) for kind in kinds), Took())
    num_bytes = sum(kind.num_rows * more * kind.num_bytes for kind in kinds)
    all_render = render + texts + audits + once * num_workers
    all_cpu = (all_render + write + load * num_workers).cpu_s
    # Clips are written in the background, unless all cores are busy.
    worker_s = max(all_render.wall_s / num_workers, (all_render + write).cpu_s / num_cores)
    paid_s = (load.wall_s + worker_s) * num_workers
    return Prediction(
        num_rows=num_rows,
        num_workers=num_workers,
        elapsed_s=load.wall_s + worker_s + ENDING_S,
        start_s=load.wall_s,
        load_s=load.wall_s,
        worker_s=paid_s,
        cpu_s=all_cpu,
        num_bytes=round(num_bytes),
        cost=None if price is None else price * paid_s / HOUR_S * gpus_per_worker,
        num_guessed=num_rows - num_tried,
        kinds=tuple(kinds),
        audits_s=audits.wall_s,
    )


def in_turn(each: Sequence[Prediction]) -> Prediction:
    """Add predictions, if workers render the rows of one model after those of another."""
    costs = [one.cost for one in each if one.cost is not None]
    return Prediction(
        num_rows=sum(one.num_rows for one in each),
        num_workers=max(one.num_workers for one in each),
        elapsed_s=sum(one.elapsed_s - ENDING_S for one in each) + ENDING_S,
        worker_s=sum(one.worker_s for one in each),
        cpu_s=sum(one.cpu_s for one in each),
        num_bytes=sum(one.num_bytes for one in each),
        cost=sum(costs) if costs else None,
        num_guessed=sum(one.num_guessed for one in each),
        kinds=tuple(kind for one in each for kind in one.kinds),
        start_s=sum(one.start_s for one in each),
        load_s=max(one.load_s for one in each),
        audits_s=sum(one.audits_s for one in each),
        placements=next((one.placements for one in each if one.placements), {}),
    )
