"""What a device assert does: its process is blamed, all rows go back, and another process renders them.

    python -m tools.benchmarks.gpu_assert --device cuda
    python -m tools.benchmarks.gpu_assert --device cuda --again   # the process that takes its place

The report compares the frames of both processes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch

from framefleet import Audit, Batching, Clip, Failure, Model, Renderer, Request, load_model
from framefleet.cluster.dispatch.dispatcher import Dispatcher, Row
from framefleet.cluster.worker.blame import culprit_of
from framefleet.pipeline.recipes.recipe import Recipe
from framefleet.pipeline.render.row_queue import with_frames
from tests.tiny import SMALLEST, tiny
from tools.benchmarks.command_line import parsed, parser_of
from tools.benchmarks.results import Result, Tell, line

NUM_ROWS = 3
ASSERTING = 1  # the row that does it, after its first step


def asserting(pipe: Any, request: Request) -> Any:
    """Render; in one row, look up what is out of range on the GPU."""

    def look_up(_: Any, __: int, ___: Any, held: dict[str, Any]) -> dict[str, Any]:
        device = held["latents"].device
        place = 9 if request.seed == ASSERTING else 0
        found = torch.arange(4, device=device)[torch.full((1,), place, device=device)]
        return {"latents": held["latents"] + found.sum()}

    generator = request.generator()
    return pipe(**request.arguments, generator=generator, callback_on_step_end=look_up, output_type="np")


def run(argv: Sequence[str], tell: Tell) -> None:
    """Tell the digests of rows, and without --again what a device assert in one of them does."""
    options = _options(argv)
    if not options.device.startswith("cuda"):
        tell({"device assert": "not measured: a CPU raises an error for the row alone"})
        return
    model = load_model(tiny("wan"), device=options.device)
    for clip in _rendered(model, [None] * NUM_ROWS):
        assert isinstance(clip, Clip)
        tell({"case": f"row {clip.request.seed}", "products": "rendered", "digest": clip.frames_sha256[:16]})
    if not options.again:
        outcomes = _rendered(model, ["asserting"] * NUM_ROWS)
        for result in _told(outcomes):
            tell(result)


def _rendered(model: Model, recipes: Sequence[str | None]) -> list[Clip | Failure]:
    batching = Batching(min_gain=0, remember=False)
    known = {"asserting": Recipe(name="asserting", function=asserting, digest="", is_batched=True)}
    renderer = Renderer(model, batching, recipes=known, audit=Audit(every=0))
    arguments = {**SMALLEST["wan"], "prompt": "a red ball"}
    for seed, recipe in enumerate(recipes):
        named = {"recipe": recipe} if recipe else {}
        renderer.submit(Request(arguments=arguments, seed=seed, **named), str(seed))
    outcomes = list[Clip | Failure]()
    while renderer.num_active:
        outcomes += [one for one in map(with_frames, renderer.step()) if isinstance(one, Clip | Failure)]
    return outcomes


def _told(outcomes: Sequence[Clip | Failure]) -> list[Result]:
    """Return what became of each row, and what the driver's dispatcher does once the worker is ended."""
    dispatcher = Dispatcher()
    dispatcher.join("proof", at=("machine",))
    dispatcher.add(Row(row_id="proof", shape="proof"))
    dispatcher.lease("proof", 0.0)
    dispatcher.done("proof", "proof", 0.0)  # until then no death there counts against a row
    dispatcher.lost("proof")
    for number in range(NUM_ROWS):
        dispatcher.add(Row(row_id=str(number), shape="wan"))
    dispatcher.join("ended", at=("machine",))
    dispatcher.lease("ended", 0.0)
    results, suspects = list[Result](), list[str]()
    for outcome in outcomes:
        if isinstance(outcome, Clip):
            results.append({"row": outcome.row_id, "blamed": "nobody", "said": ""})
            continue
        blame, said = culprit_of(outcome.error).blame, str(outcome.error).splitlines()[0]
        suspects += [outcome.row_id] if blame == "worker" else []
        results.append({"row": outcome.row_id, "blamed": blame, "said": said})
    given_up = dispatcher.lost("ended", suspects=suspects) if suspects else []
    waiting = dispatcher.num_waiting
    return [*results, {"worker is ended": bool(suspects), "rows back": waiting, "given up": len(given_up)}]


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--again", action="store_true", help="only render: in the process that takes its place"
    )
    return parsed(parser, argv)


def main() -> None:
    run(sys.argv[1:], lambda result: print(line(result), flush=True))


if __name__ == "__main__":
    main()
