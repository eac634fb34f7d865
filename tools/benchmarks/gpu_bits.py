"""Whether a row's bits stay the same in a batch, for each kernel, number of tokens and number of rows.

    python -m tools.benchmarks.gpu_bits --device cuda --matmul no_split_k

How products are summed is set before CUDA starts, so each setting takes a process of its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from framefleet.pipeline.memory import free_memory
from framefleet.pipeline.model.numerics import DEFAULT, NO_SPLIT_K, numerics_of
from framefleet.pipeline.model.options.schema import Options
from tests.standin.install import is_installed
from tools.benchmarks.command_line import parsed, parser_of
from tools.benchmarks.results import Result, Tell, line

# Takes (rows, tokens, width).
Kernel = Callable[[Tensor], Tensor]
ROWS = (2, 3, 4, 6, 8)
# One token is a timestep; 512 a prompt; 1560 and 7800 are Wan at 480p, of 1 and 17 frames.
TOKENS = (1, 77, 512, 1560, 7800)
# In and out, of Wan 1.3B, Wan 14B and Stable Diffusion 1.5.
WIDTHS = ((1536, 1536), (1536, 8960), (8960, 1536), (5120, 5120), (13824, 5120), (320, 320), (1280, 10240))
HEADS, HEAD_WIDTH = 12, 128
ATTENTIONS = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
MATH_TOKENS = 1560  # it keeps all scores
MAX_SHOWN = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    rows: Sequence[int]
    tokens: Sequence[int]
    widths: Sequence[tuple[int, int]]


FULL = Shapes(rows=ROWS, tokens=TOKENS, widths=WIDTHS)
TINY = Shapes(rows=ROWS[:2], tokens=(1, 8), widths=((32, 64),))


def run(argv: Sequence[str], tell: Tell) -> None:
    """Tell what is found for each kernel, width and number of tokens."""
    options = _options(argv)
    numerics_of(Options(matmul=options.matmul), threads=1, device=options.device).apply()
    shapes = TINY if options.tiny else FULL
    torch.manual_seed(0)
    if is_installed():
        tell({"bits": "not imitated: the stand-in multiplies on the CPU, and has no Triton"})
    with torch.no_grad():
        for result in _results(shapes, options):
            tell(result)


def _results(shapes: Shapes, options: argparse.Namespace) -> Iterator[Result]:
    made: dict[str, Any] = {
        "device": options.device,
        "dtype": torch.float32 if options.tiny else torch.bfloat16,
    }
    for tokens in shapes.tokens:  # the small ones first: a call that is cut off has seen all widths
        for width, columns in shapes.widths:
            weight, bias = torch.randn(columns, width, **made) / width**0.5, torch.randn(columns, **made)
            rows = torch.randn(max(shapes.rows), tokens, width, **made)
            for name, kernel in _products(weight, bias, options):
                yield _compared(f"{width} to {columns}", name, rows, kernel, shapes.rows)
        rows = torch.randn(max(shapes.rows), tokens, HEADS * HEAD_WIDTH, **made)
        for backend in ATTENTIONS:
            if backend is not SDPBackend.MATH or tokens <= MATH_TOKENS:
                yield _compared("attention", backend.name.lower(), rows, _attention(backend), shapes.rows)
        free_memory()


def _products(weight: Tensor, bias: Tensor, options: argparse.Namespace) -> Iterator[tuple[str, Kernel]]:
    yield options.matmul, lambda x: F.linear(x, weight, bias)
    if options.matmul == NO_SPLIT_K and find_spec("triton") and not options.tiny:
        from framefleet.pipeline.model.triton_linear import linear

        yield "triton", lambda x: linear(x, weight, bias)


def _attention(backend: SDPBackend) -> Kernel:
    def attention(x: Tensor) -> Tensor:
        split = x.unflatten(-1, (HEADS, HEAD_WIDTH)).transpose(1, 2)  # (rows, heads, tokens, width)
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(split, split, split)

    return attention


def _compared(what: str, name: str, rows: Tensor, kernel: Kernel, sizes: Sequence[int]) -> Result:
    """Compare each row alone with the same row together with others. rows: (rows, tokens, width)."""
    equal, differs, error, repeats = list[int](), list[int](), "", False
    try:
        alone = torch.cat([kernel(row[None]) for row in rows])
        repeats = torch.equal(kernel(rows[:1]), alone[:1])
        for size in sizes:
            (equal if torch.equal(kernel(rows[:size]), alone[:size]) else differs).append(size)
    except RuntimeError as problem:  # a kernel that this GPU lacks, or memory: the others say something
        if any(said in str(problem) for said in ("CUDA error", "device-side")):
            raise
        error = str(problem).splitlines()[0][:MAX_SHOWN]
    return {
        "what": what,
        "kernel": name,
        "tokens": rows.shape[1],
        "repeats": repeats,
        "equal beside": ", ".join(map(str, equal)),
        "differs beside": ", ".join(map(str, differs)),
        "error": error,
    }


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--matmul", choices=(DEFAULT, NO_SPLIT_K), default=NO_SPLIT_K)
    parser.add_argument("--tiny", action="store_true", help="a few small shapes, for machines without a GPU")
    return parsed(parser, argv)


def main() -> None:
    run(sys.argv[1:], lambda result: print(line(result), flush=True))


if __name__ == "__main__":
    main()
