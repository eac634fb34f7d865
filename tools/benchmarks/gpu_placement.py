"""Rows of a model on two GPUs: equal to those on one, and what they take.

python -m tools.benchmarks.gpu_placement --device cuda --placement ulysses
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from framefleet import Audit, Batching, Clip, Model, Renderer, Request
from framefleet.pipeline.model.device_placement import Placement, placer_of
from tests.standin.install import is_installed
from tests.tiny import SMALLEST
from tools.benchmarks.command_line import parsed, parser_of
from tools.benchmarks.real_rows import KINDS, pipeline_of
from tools.benchmarks.results import Result, Tell, line

NUM_ROWS = 3  # the first one starts processes, and is compared


def run(argv: Sequence[str], tell: Tell) -> None:
    """Tell how many rows of each kind were equal, and how long the last one took on one GPU and on two."""
    options = _options(argv)
    kind = options.placement
    if not options.device.startswith("cuda") or torch.cuda.device_count() < 2:
        tell({"placement": kind, "result": "not measured: there are no two GPUs"})
        return
    if is_installed() and kind == "ulysses":
        tell({"placement": kind, "result": "not measured: the stand-in is one process's"})
        return
    with tempfile.TemporaryDirectory() as folder:
        for result in _results(Path(folder), options):
            tell(result)


def _results(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    for number, kind in enumerate(KINDS):
        model = pipeline_of(kind, folder / str(number), options)
        arguments = SMALLEST[kind.tiny] if options.tiny else kind.arguments
        rows = [
            Request(arguments={**arguments, "prompt": "a red ball"}, seed=seed) for seed in range(NUM_ROWS)
        ]
        placer = placer_of(Placement(type=options.placement, devices=2), "cuda")
        placer.check(model.settings, model.spec, {})
        model.pipe.to(options.device)
        expected, alone_s = _rendered(model, rows)
        model.pipe.to("cpu")
        placer.place(model.pipe)
        outcomes, placed_s = _rendered(replace(model, placer=placer), rows)
        yield {
            "model": kind.name,
            "placement": options.placement,
            "equal": sum(a == b for a, b in zip(outcomes, expected, strict=True)),
            "rows": len(rows),
            "first that is not": next(
                (b for a, b in zip(expected, outcomes, strict=True) if a != b), "all are"
            ),
            "seconds on one": round(alone_s, 2),
            "share of these on two": round(placed_s / alone_s, 3),
        }


def _rendered(model: Model, rows: Sequence[Request]) -> tuple[list[str], float]:
    """Return each row's frames, or its error, and the seconds of the last one."""
    renderer = Renderer(model, Batching(max_rows=1, remember=False), audit=Audit(every=0))
    results, seconds = [], 0.0
    for row in rows:
        started = time.perf_counter()
        (outcome,) = renderer.render([row])
        seconds = time.perf_counter() - started
        results.append(outcome.frames_sha256 if isinstance(outcome, Clip) else str(outcome.error))
    return results, seconds


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--tiny", action="store_true", help="tiny rows, for machines without a GPU")
    parser.add_argument("--placement", default="components", choices=("components", "layers", "ulysses"))
    options = parsed(parser, argv)
    options.matmul = "no_split_k"
    return options


def main() -> None:
    run(sys.argv[1:], lambda result: print(line(result), flush=True))


if __name__ == "__main__":
    main()
