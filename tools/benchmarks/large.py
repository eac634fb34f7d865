"""A denoiser of 53 million parameters: `exact` compared with `fast`, and `fast` with a batch made by hand.

    python -m tools.benchmarks.large [--short]

In one process of one thread, without Ray and files. Each way renders the table once, to find its sizes, and
then again in turns with the others; the least CPU seconds count, so that other work on the machine does not.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch

from framefleet.pipeline.model.load_model import load_model
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.outputs.frames.frames import to_frames
from framefleet.pipeline.render.audit.schedule import Audit
from framefleet.pipeline.render.fused.batching import Batching
from framefleet.pipeline.render.renderer import Renderer
from tools.benchmarks.ceiling import request_of
from tools.benchmarks.plain import SHARED, Row
from tools.benchmarks.table import MAX_ROWS, build_model, mixed_rows, uniform_rows

HEADINGS = (
    *("dtype", "table", "plain rows/CPU s", "best batch by hand", "fast", "exact"),
    *("fast / by hand", "exact / fast", "exact / plain", "rows a forward, fast", "exact"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    heads: int = 8
    head_dim: int = 64
    layers: int = 12
    rows: int = 8
    steps: int = 4
    turns: int = 1  # after the one in which sizes are found
    dtypes: Sequence[str] = ("fp32",)
    hand_batches: Sequence[int] = (8,)

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        tables = {"mixed": mixed_rows(), "uniform": uniform_rows()}
        steps = {"num_inference_steps": self.steps}
        return {name: [row | steps for row in rows[: self.rows]] for name, rows in tables.items()}


FULL = Scale()
SHORT = Scale(heads=2, head_dim=16, layers=1, rows=2, steps=1, turns=1, dtypes=["fp32"], hand_batches=[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--short", action="store_true", help="a toy; its figures mean nothing")
    torch.set_num_threads(1)
    print_large(SHORT if parser.parse_args().short else FULL)


def print_large(scale: Scale) -> None:
    """Print the table as Markdown, line by line as they are measured."""
    print("| " + " | ".join(HEADINGS) + " |")
    print("|" + "---|" * len(HEADINGS))
    with tempfile.TemporaryDirectory() as folder:
        path = build_model(Path(folder), heads=scale.heads, head_dim=scale.head_dim, layers=scale.layers)
        for dtype in scale.dtypes:
            model = load_model(path, dtype=dtype)
            for name, rows in scale.tables().items():
                figures = " | ".join(_figures(model, name, rows, scale))
                print(f"| {dtype} | {name} | {figures} |", flush=True)


def _figures(model: Model, name: str, rows: Sequence[Row], scale: Scale) -> Iterator[str]:
    fleet = {mode: Fleet(model, mode) for mode in ("fast", "exact")}
    batches = scale.hand_batches if name == "uniform" else ()  # rows that differ are no batch for diffusers
    ways: dict[Any, Callable[[Sequence[Row]], Any]] = {
        **fleet,
        **{batch: PlainBatches(model, batch) for batch in (1, *batches)},
    }
    rates = {way: len(rows) / seconds for way, seconds in _least_seconds(ways, rows, scale.turns).items()}
    best = max((1, *batches), key=rates.__getitem__)
    yield f"{rates[1]:.2f}"
    yield f"{rates[best]:.2f} ({best})"
    yield f"{rates['fast']:.2f}"
    yield f"{rates['exact']:.2f}"
    yield f"{rates['fast'] / rates[best]:.0%}"
    yield f"{rates['exact'] / rates['fast']:.0%}"
    yield f"{rates['exact'] / rates[1]:.2f}"
    yield from (f"{own.mean_batch:.1f}" for own in fleet.values())


def _least_seconds(
    ways: dict[Any, Callable[[Sequence[Row]], Any]], rows: Sequence[Row], turns: int
) -> dict[Any, float]:
    least: dict[Any, float] = {}
    for turn in range(1 + turns):
        for way, render in ways.items():
            started = time.process_time()
            render(rows)
            seconds = time.process_time() - started
            least[way] = min(seconds, least[way]) if turn > 1 else seconds  # the first finds sizes
    return least


class Fleet:
    """framefleet's renderer; mean_batch: rows of a forward, in the last rendering."""

    def __init__(self, model: Model, mode: Any) -> None:
        self._renderer = Renderer(model, Batching(mode=mode, max_rows=MAX_ROWS), audit=Audit(every=0))
        self.mean_batch = 0.0

    def __call__(self, rows: Sequence[Row]) -> None:
        clips = list(self._renderer.render(request_of(row) for row in rows))
        self.mean_batch = sum(clip.batch_size for clip in clips) / len(clips)  # type: ignore[union-attr]


class PlainBatches:
    """diffusers as people call it, so many rows at a time."""

    def __init__(self, model: Model, batch: int) -> None:
        self._pipe, self._own, self._batch = model.pipe, model.pipe.scheduler, batch
        self._pipe.set_progress_bar_config(disable=True)

    def __call__(self, rows: Sequence[Row]) -> None:
        for first in range(0, len(rows), self._batch):
            self._call(rows[first : first + self._batch])
        self._pipe.scheduler = self._own

    def _call(self, rows: Sequence[Row]) -> None:
        self._pipe.scheduler = getattr(diffusers, rows[0]["scheduler"]).from_config(self._own.config)
        output = self._pipe(
            prompt=[row["prompt"] for row in rows],
            generator=[torch.Generator("cpu").manual_seed(row["seed"]) for row in rows],
            output_type="np",
            **{name: rows[0][name] for name in SHARED},
        )
        for clip in output.frames:
            to_frames(clip)


if __name__ == "__main__":
    main()
