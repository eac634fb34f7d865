"""What rows cost in calls, and not in seconds: for each way to render, what it costs and what it may cost.

    python -m tools.benchmarks.counts                   # a table, as Markdown
    python -m tools.benchmarks.counts alone batched     # of some ways

Rows of two prompts on tiny models with random weights. Counted is what networks compute, below all that a
renderer puts around them. `table` returns the text for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from framefleet import Audit, Batching, Clip, Model, Renderer, Request, load_model
from framefleet.pipeline.outputs.parts.records import told_arguments
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.render.fused.batching import Mode
from framefleet.pipeline.rows.identity import LaneKey
from framefleet.pipeline.rows.inputs.access import Inputs
from tests.crafter import MOTION, SMALLEST as SMALLEST_CRAFTER, crafter
from tests.driven import render_driven
from tests.jobs import records_of
from tests.tiny import SMALLEST, tiny
from tests.two_models import MODELS, two_model_rows, two_models
from tools.benchmarks.meter import Calls, Meter
from tools.benchmarks.results import Result, tables

NUM_ROWS, NUM_STEPS, PROMPTS = 4, 3, ("a red ball", "rain on a tin roof")
_UNBATCHED = {"batching": {"max_rows": 1}, "audit": {"every": 0}}
_PICTURES = {"image_to_video": ("image",), "keyframes": ("image",)}  # by recipe, what of it is one


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What one way costs. plain: the same rows by plain calls. waits: of the host for the device, between the
    last step of a row and the first of the next, which plain calls do not have; None: not counted.
    """

    way: str
    num_rows: int
    num_workers: int
    calls: Calls
    plain: Calls
    waits: int | None = None

    def excess(self) -> Iterator[str]:
        """Yield what is more than it may be."""
        calls, plain = self.calls, self.plain
        for name, cost, allowed in (
            ("texts encoded", len(calls.texts), len(set(calls.texts))),
            ("pictures encoded", len(calls.pictures), len(set(calls.pictures))),
            ("forwards of rows", calls.num_forwards, plain.num_forwards),
            ("scheduler steps", calls.num_steps, plain.num_steps // AT_ONCE.get(self.way, 1)),
            ("decodes", calls.num_decodes, plain.num_decodes),
            ("conversions in the way", calls.num_conversions, 0),
            ("waits in the way", self.waits or 0, WITH_WAITS.get(self.way, 0)),
            ("weights read", calls.num_loads, self.num_workers),
        ):
            if cost > allowed:
                yield f"{self.way}: {name}: {cost}, and may be {allowed}"

    def cells(self) -> Result:
        calls, plain = self.calls, self.plain
        return {
            "way": self.way,
            "rows": self.num_rows,
            "texts encoded": f"{len(calls.texts)} of {len(set(calls.texts))} (plain {len(plain.texts)})",
            "pictures encoded": f"{len(calls.pictures)} of {len(set(calls.pictures))}",
            "forwards of rows": f"{calls.num_forwards} (plain {plain.num_forwards})",
            "scheduler steps": f"{calls.num_steps} (plain {plain.num_steps})",
            "decodes": f"{calls.num_decodes} (plain {plain.num_decodes})",
            "conversions in the way": calls.num_conversions,
            "waits in the way": "" if self.waits is None else f"{self.waits} of {WITH_WAITS[self.way]}",
            "weights read": f"{calls.num_loads} by {self.num_workers} workers" if calls.num_loads else "",
        }


def looking(pipe: Any, request: Request) -> Any:
    """Render as the recipe generate does, and look at the frames."""
    frames = np.asarray(pipe(**request.arguments, generator=request.generator(), output_type="np").frames)
    return frames[:, ::-1].copy()


LOOKING = {"looking": Recipe(name="looking", function=looking, digest="0" * 64)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to render rows with one renderer. is_warm: other rows go first, of which it learns. has_drafts:
    the same rows come before with one step.
    """

    model: str = "wan"
    recipe: str = "generate"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    max_rows: int = 1
    mode: Mode = "exact"
    cache: str | None = None
    is_warm: bool = False
    has_drafts: bool = False

    @property
    def pictures(self) -> tuple[str, ...]:
        """Which arguments are pictures."""
        return _PICTURES.get(self.recipe, ())

    def load(self) -> Model:
        options = {"cache": {"type": self.cache}} if self.cache else {}
        return load_model(
            crafter(MOTION) if self.model == "crafter" else tiny(self.model), dtype="fp32", **options
        )

    def rows(self, folder: Path) -> list[Request]:
        """Return rows of two prompts, each of a seed; of one picture, where they take one."""
        given = (SMALLEST | {"crafter": SMALLEST_CRAFTER})[self.model] | {"num_inference_steps": NUM_STEPS}
        given |= {"max_sequence_length": 32} if self.model == "wan" else {}  # 512 cost more than all else
        given |= {name: str(folder / "picture.png") for name in self.pictures} | self.arguments
        rows = [
            Request(arguments=given | {"prompt": PROMPTS[seed % 2]}, seed=seed, recipe=self.recipe, fps=4.0)
            for seed in range(NUM_ROWS)
        ]
        drafts = [replace(row, arguments=row.arguments | {"num_inference_steps": 1}) for row in rows]
        return [*drafts, *rows] if self.has_drafts else rows

    def renderer(self, model: Model, folder: Path) -> Renderer:
        batching = Batching(mode=self.mode, max_rows=self.max_rows, min_gain=0, remember=False)
        inputs = Inputs([str(folder)])
        return Renderer(model, batching, recipes=LOOKING, audit=Audit(every=0), inputs=inputs)


WAYS = {
    "alone": Way(),
    "batched": Way(max_rows=NUM_ROWS, is_warm=True),
    "batched, fast": Way(max_rows=NUM_ROWS, mode="fast", is_warm=True),
    "drafts, then full": Way(has_drafts=True),
    "cached steps": Way(cache="first_block"),
    "own recipe": Way(recipe="looking", is_warm=True),
    "extend": Way(recipe="extend", arguments={"duration_s": 3.0, "overlap": 1}, is_warm=True),
    "refine": Way(recipe="refine", arguments={"height": 32, "width": 32, "strength": 0.8}, is_warm=True),
    "keyframes": Way(
        model="crafter",
        recipe="keyframes",
        arguments={"duration_s": 1.0, "keyframe_times": "0.4"},
        is_warm=True,
    ),
    "image to video": Way(model="wan_i2v", recipe="image_to_video"),
}
# How many rows are one call of a pipeline.
AT_ONCE = {"batched, fast": NUM_ROWS}
# The waits that each may have: a picture is compared with those of other rows on the device.
WITH_WAITS = {"alone": 0, "cached steps": 0, "own recipe": 0, "image to video": 2}


def measured(name: str, folder: Path) -> Count:
    """Count the calls of rows that one renderer renders."""
    way = WAYS[name]
    model, rows = way.load(), way.rows(folder)
    plain, meter = Meter(model.pipe), Meter(model.pipe)
    with plain.counting():
        judge = way.renderer(model, folder)
        for index, row in enumerate(rows):
            _judged(judge, row, index)
    with meter.counting() as calls:
        renderer = way.renderer(model, folder)
        if way.is_warm:
            warm = [row.arguments | {"prompt": "warm" * (1 + place % 2)} for place, row in enumerate(rows)]
            render(renderer, [replace(row, arguments=own) for row, own in zip(rows, warm, strict=True)])
            calls.clear()
        render(renderer, rows)
    return Count(way=name, num_rows=len(rows), num_workers=1, calls=meter.calls, plain=plain.calls)


def render(renderer: Renderer, rows: Iterable[Request]) -> None:
    for outcome in renderer.render(rows):
        assert isinstance(outcome, Clip), outcome.traceback


def _judged(judge: Renderer, row: Request, index: int) -> None:
    outcome = judge.render_plainly(*judge._check(row, index))
    assert isinstance(outcome, Clip), outcome.traceback


def several_models(folder: Path) -> Count:
    """Two models in one job, of a worker each."""
    return _of_job("several models", two_models(folder, two_model_rows(NUM_ROWS)), MODELS)


JOBS = {"several models": several_models}


def _of_job(name: str, values: dict[str, Any], models: Iterable[str]) -> Count:
    loaded = {model: load_model(tiny(model)) for model in models}
    pipes = [model.pipe for model in loaded.values()]
    plain, meter = Meter(*pipes), Meter(*pipes)
    with meter.counting():
        render_driven(values | _UNBATCHED, num_workers=2, lanes=(workers := list[LaneKey]()))
    records = records_of(values["output"])
    with plain.counting():
        for record in records:
            request = Request(arguments=told_arguments(record), seed=record["seed"])
            judge = Renderer(loaded[record.get("model_name") or "wan"], audit=Audit(every=0))
            _judged(judge, request, 0)
    return Count(
        way=name, num_rows=len(records), num_workers=len(workers), calls=meter.calls, plain=plain.calls
    )


def counted(names: Iterable[str] = ()) -> Iterator[Count]:
    """Yield what ways cost; all of them, if none is named."""
    wanted = [*names] or [*WAYS, *JOBS]
    waits = waits_of([name for name in wanted if name in WITH_WAITS])
    with tempfile.TemporaryDirectory() as path:
        folder = with_picture(Path(path))
        for name in wanted:
            count = JOBS[name](folder) if name in JOBS else measured(name, folder)
            yield replace(count, waits=waits.get(name))


def with_picture(folder: Path) -> Path:
    """Put the picture of rows that take one into a folder; return the folder."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    return folder


def waits_of(names: list[str]) -> dict[str, int]:
    """Return the waits of ways, which a process with the stand-in for a GPU counts."""
    if not names:
        return {}
    ended = subprocess.run(
        [sys.executable, "-m", "tools.benchmarks.waits", *names], check=True, stdout=subprocess.PIPE
    )
    return json.loads(ended.stdout)


def table(names: Iterable[str] = ()) -> str:
    """Return a table of Markdown."""
    return tables(count.cells() for count in counted(names))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.counts", description=__doc__)
    parser.add_argument("ways", nargs="*", choices=[[], *WAYS, *JOBS], help="all of them, if none is named")
    print(table(parser.parse_args().ways))


if __name__ == "__main__":
    main()
