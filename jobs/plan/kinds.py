"""From the rows that are still to render to what they cost by: how many of each shape, and a few of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice

from framefleet.pipeline.request import Request

# Texts that are counted one by one, in 100 MB; beyond, the share of new texts so far is assumed.
MAX_TEXTS = 1 << 20
_PER_STRATUM = 8  # rows kept of those that call the denoiser as often


@dataclass(slots=True)
class RowKind:
    """Rows of one shape and recipe: those that share forwards.

    num_calls: of the denoiser, by all of them. strata: by the calls of a row, how many there are, and the
    first of them.
    """

    name: str
    num_rows: int = 0
    num_calls: int = 0
    strata: dict[int, tuple[int, list[Request]]] = field(default_factory=dict)

    def add(self, request: Request) -> None:
        calls = calls_of(request)
        self.num_rows += 1
        self.num_calls += calls
        count, kept = self.strata.get(calls, (0, []))
        if len(kept) < _PER_STRATUM:
            kept.append(request)
        self.strata[calls] = (count + 1, kept)

    def sample(self) -> Iterator[Request]:
        """Yield rows without end, of each stratum as many as the table has in proportion."""
        sources = {calls: cycle(kept) for calls, (_, kept) in self.strata.items()}
        taken = dict.fromkeys(sources, 0)
        while True:
            most = max(sources, key=lambda calls: self.strata[calls][0] / (taken[calls] + 0.5))
            taken[most] += 1
            yield next(sources[most])


@dataclass(slots=True)
class Kinds:
    """All rows that are still to render. Texts are prompts and negative prompts, each counted once."""

    by_name: dict[str, RowKind] = field(default_factory=dict)
    num_rows: int = 0
    _texts: set[int] = field(default_factory=set)
    _num_asked: int = 0

    def add(self, shape: str, request: Request) -> None:
        name = f"{request.recipe} {shape}" if request.recipe != "generate" else shape
        self.by_name.setdefault(name, RowKind(name)).add(request)
        self._note(request)

    @property
    def num_texts(self) -> int:
        """How often a text is new to whoever renders all rows."""
        share = len(self._texts) / self._num_asked if self._num_asked else 0.0
        return round(share * self.num_rows)

    def most_frequent(self, count: int) -> list[RowKind]:
        ordered = sorted(self.by_name.values(), key=lambda kind: -kind.num_calls)
        return list(islice(ordered, count))

    def _note(self, request: Request) -> None:
        self.num_rows += 1
        if len(self._texts) < MAX_TEXTS:
            self._num_asked += 1
            texts = (request.arguments.get(name) or "" for name in ("prompt", "negative_prompt"))
            self._texts.add(hash(tuple(zlib.crc32(str(text).encode("utf-8", "replace")) for text in texts)))


def calls_of(request: Request) -> int:
    """Return about how often a row calls the denoiser: its steps, and again for each where it is guided."""
    arguments = request.arguments
    steps = arguments.get("num_inference_steps")
    guidance = arguments.get("guidance_scale")
    is_guided = isinstance(guidance, int | float) and guidance > 1
    return (steps if isinstance(steps, int) and steps > 0 else 1) * (2 if is_guided else 1)
