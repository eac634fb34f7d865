"""Whether convolutions keep their bits when memory is short, and whether `num_ooms` shows it when not.

    python -m tools.benchmarks.gpu_squeezed --device cuda

torch swallows the failure to get a workspace and takes another algorithm. The renderer repeats such a call
where `num_ooms` rose, so what must not happen is `differs unseen`. A CPU and the stand-in have no workspaces.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from framefleet.pipeline.memory import free_memory, is_out_of_memory
from framefleet.pipeline.model.numerics import numerics_of
from framefleet.pipeline.model.options.schema import Options
from tests.standin.install import is_installed
from tools.benchmarks.command_line import parsed, parser_of
from tools.benchmarks.results import Result, Tell, line

MIB = 1 << 20
SPARE_MIB = (4096, 1024, 256, 64, 16, 4, 0)  # besides input, weight and output
TINY_SPARE_MIB = (1, 0)


@dataclass(frozen=True, slots=True)
class Convolution:
    """size: of the input, without its channels; three numbers for one over time too."""

    name: str
    channels: tuple[int, int]
    size: tuple[int, ...]


FULL = (
    Convolution("Stable Diffusion's UNet, 512", (320, 320), (64, 64)),
    Convolution("its decoder, 512", (256, 128), (512, 512)),
    Convolution("its decoder, 1024", (256, 128), (1024, 1024)),
    Convolution("Wan's decoder, 480p, small", (384, 384), (4, 60, 104)),
    Convolution("Wan's decoder, 480p, large", (192, 96), (6, 480, 832)),
)
TINY = (Convolution("2D", (4, 4), (16, 16)), Convolution("3D", (4, 4), (3, 16, 16)))


def run(argv: Sequence[str], tell: Tell) -> None:
    """Tell of each convolution and amount of spare memory what became of its bits."""
    options = _options(argv)
    numerics_of(Options(), threads=1, device=options.device).apply()
    dtypes = [torch.float32] if options.tiny else [torch.bfloat16, torch.float32]
    spares = TINY_SPARE_MIB if options.tiny else SPARE_MIB
    torch.manual_seed(0)
    if is_installed():
        tell({"workspaces": "not imitated: no convolution of the stand-in asks for one"})
    with torch.no_grad():
        for convolution in TINY if options.tiny else FULL:
            for dtype in dtypes:
                for result in _results(convolution, dtype, options.device, spares=spares):
                    tell(result)


def _results(
    convolution: Convolution, dtype: torch.dtype, device: str, *, spares: Sequence[int]
) -> Iterator[Result]:
    kind = nn.Conv2d if len(convolution.size) == 2 else nn.Conv3d
    layer = kind(*convolution.channels, 3, padding=1).to(device, dtype)
    x = torch.randn(1, convolution.channels[0], *convolution.size).to(device, dtype)
    expected = layer(x)
    for spare in spares:
        before, error, made = _num_ooms(device), "", None
        try:
            made = _squeezed(layer, x, expected.nbytes + spare * MIB, device=device)
        except Exception as problem:
            if not is_out_of_memory(problem):
                raise
            error = "out of memory"
        num_ooms = _num_ooms(device) - before
        yield {
            "convolution": convolution.name,
            "dtype": str(dtype).removeprefix("torch."),
            "spare MiB": spare,
            "num_ooms": num_ooms,
            "equal": "" if made is None else torch.equal(made, expected),
            "differs unseen": made is not None and not num_ooms and not torch.equal(made, expected),
            "error": error,
        }


def _squeezed(layer: nn.Module, x: Tensor, room: int, *, device: str) -> Tensor:
    """Run a layer with this many bytes besides what is held."""
    if not device.startswith("cuda"):
        return layer(x)
    free_memory()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved(device) + room) / total))
    try:
        return layer(x)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _num_ooms(device: str) -> int:
    return int(torch.cuda.memory_stats(device)["num_ooms"]) if device.startswith("cuda") else 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--tiny", action="store_true", help="small ones, for machines without a GPU")
    return parsed(parser, argv)


def main() -> None:
    run(sys.argv[1:], lambda result: print(line(result), flush=True))


if __name__ == "__main__":
    main()
