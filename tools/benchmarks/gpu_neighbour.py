"""What becomes of rows while another process holds most of a GPU: they go on, or their place is blamed.

    python -m tools.benchmarks.gpu_neighbour --device cuda

Room is counted in rows: how often what one row computes with, besides the weights, still fits.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from framefleet import Audit, Batching, Clip, Failure, Renderer, Request
from framefleet.cluster.worker.blame import culprit_of
from framefleet.pipeline.memory import free_memory
from tests.standin.install import is_installed
from tests.standin.tensor import gpus
from tests.tiny import SMALLEST
from tools.benchmarks.command_line import parsed, parser_of
from tools.benchmarks.real_rows import KINDS, pipeline_of
from tools.benchmarks.results import Result, Tell, line

ROOMS = (6.0, 1.5, 0.5)  # of one row; the last is too small for any
NUM_ROWS = 4
HOLDER = """
import sys, torch
held = torch.empty(max(0, torch.cuda.mem_get_info()[0] - int(sys.argv[1])), dtype=torch.uint8, device="cuda")
print("ready", flush=True)
sys.stdin.read()
"""


def run(argv: Sequence[str], tell: Tell) -> None:
    """Tell for each room how many rows were exact, and who was blamed for the others."""
    options = _options(argv)
    if not options.device.startswith("cuda"):
        tell({"neighbour": "not measured: a CPU's memory is not shared out"})
        return
    if is_installed():
        tell({"neighbour": "imitated: the stand-in has less memory, and no other process holds it"})
    with tempfile.TemporaryDirectory() as folder:
        for result in _results(Path(folder), options):
            tell(result)


def _results(folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    kind = KINDS[0]
    model = pipeline_of(kind, folder, options)
    model.pipe.to(options.device)
    arguments = SMALLEST[kind.tiny] if options.tiny else kind.arguments
    rows = [
        Request(arguments={**arguments, "guidance_scale": 1.0, "prompt": "a red ball"}, seed=seed)
        for seed in range(2 if options.tiny else NUM_ROWS)
    ]
    free_memory()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    plain = Renderer(model, Batching(max_rows=1, remember=False), audit=Audit(every=0))
    expected = [clip.frames_sha256 for clip in plain.render(rows) if isinstance(clip, Clip)]
    assert len(expected) == len(rows)
    row_bytes = torch.cuda.max_memory_allocated() - held
    for room in ROOMS:
        free_memory()
        with neighbour(int(room * row_bytes)):
            renderer = Renderer(model, Batching(min_gain=0, remember=False), audit=Audit(every=0))
            outcomes = list(renderer.render(rows))
        clips = [outcome for outcome in outcomes if isinstance(outcome, Clip)]
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        blamed = Counter(culprit_of(failure.error).blame for failure in failures)
        yield {
            "room, in rows": room,
            "room MB": round(room * row_bytes / 1e6, 1),
            "exact": sum(clip.frames_sha256 == expected[clip.request.seed] for clip in clips),
            "wrong": sum(clip.frames_sha256 != expected[clip.request.seed] for clip in clips),
            "rows a forward, at most": round(max((clip.batch_size for clip in clips), default=0), 2),
            "blamed": ", ".join(f"{blame}: {number}" for blame, number in blamed.items()) or "nobody",
        }


@contextmanager
def neighbour(room: int) -> Iterator[None]:
    """Have another process hold all of the first GPU but this many bytes; on the stand-in only say so."""
    if is_installed():
        gpus.devices[0].used_by_others = gpus.devices[0].free - room
        try:
            yield
        finally:
            gpus.devices[0].used_by_others = 0
        return
    command = [sys.executable, "-c", HOLDER, str(room)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "ready\n", "the neighbour did not start"
            yield
        finally:
            process.kill()


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--tiny", action="store_true", help="tiny rows, for machines without a GPU")
    options = parsed(parser, argv)
    options.matmul = "no_split_k"
    return options


def main() -> None:
    run(sys.argv[1:], lambda result: print(line(result), flush=True))


if __name__ == "__main__":
    main()
