"""Whether two fresh processes compile the same bits: digests of a compiled network, and of it as it is.

    python -m tools.benchmarks.gpu_compiled --device cuda   # run it twice, and compare

Each run compiles with an empty cache of its own, as two machines would. The report compares the digests.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from framefleet.pipeline.model.numerics import numerics_of
from framefleet.pipeline.model.options.regions import allow_graphs, check_compiler
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.render.fused.calls import digest_of
from tests.standin.install import is_installed
from tools.benchmarks.command_line import parsed, parser_of
from tools.benchmarks.real_width import build, wan, wan_inputs
from tools.benchmarks.results import Result, Tell, line

LAYERS = 2  # all are alike, and are compiled once
SIZES = ((256, 256, 17), (480, 832, 17))


def run(argv: Sequence[str], tell: Tell) -> None:
    """Tell digests, as it is first and compiled then."""
    options = _options(argv)
    with tempfile.TemporaryDirectory() as cache, torch.no_grad():
        os.environ.update(TORCHINDUCTOR_CACHE_DIR=cache, TRITON_CACHE_DIR=f"{cache}/triton")
        for result in _results(options):
            tell(result)


def _results(options: argparse.Namespace) -> Iterator[Result]:
    numerics_of(Options(compile=True), threads=1, device=options.device).apply()
    dtype = torch.float32 if options.tiny else torch.bfloat16
    heads = 2 if options.tiny else 12
    network = build(lambda: wan(layers=LAYERS, heads=heads), options.device, dtype)
    for products in ("as it is", "compiled"):
        if products == "compiled":
            if is_installed():
                yield {"compile": "not imitated: the compiler makes no code for the stand-in's tensors"}
                return
            check_compiler(options.device)
            allow_graphs()
            network.compile_repeated_blocks(fullgraph=True)
        for height, width, num_frames in [(64, 64, 5)] if options.tiny else SIZES:
            inputs = _inputs(options.device, dtype, height=height, width=width, num_frames=num_frames)
            started = time.perf_counter()
            digest = digest_of(network(**inputs)[0]).hex()
            yield {
                "case": f"Wan, {LAYERS} layers, {width}x{height}x{num_frames}",
                "products": products,
                "first s": round(time.perf_counter() - started, 2),
                "repeats": digest_of(network(**inputs)[0]).hex() == digest,
                "digest": digest[:16],
            }


def _inputs(device: str, dtype: torch.dtype, **size: int) -> dict[str, Any]:
    made = wan_inputs(torch.Generator().manual_seed(1), **size)
    return {
        name: value.to(device, dtype if value.is_floating_point() else None)
        if isinstance(value, torch.Tensor)
        else value
        for name, value in made.items()
    }


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--tiny", action="store_true", help="toy width, for machines without a GPU")
    return parsed(parser, argv)


def main() -> None:
    run(sys.argv[1:], lambda result: print(line(result), flush=True))


if __name__ == "__main__":
    main()
