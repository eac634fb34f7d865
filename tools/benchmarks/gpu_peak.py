"""The most memory that decoders and denoisers hold on a GPU, besides what `plan` computes for them.

    python -m tools.benchmarks.gpu_peak --device cuda

Weights are left out on both sides. `reserved` has what torch keeps between blocks too.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import torch

from framefleet.pipeline.memory import free_memory, is_out_of_memory
from framefleet.pipeline.model.numerics import numerics_of
from framefleet.pipeline.model.options.schema import Options
from framefleet.plugins.memory.stub_networks import metered
from tests.decoders import COUNTED, Counted, decode_peak
from tools.benchmarks.command_line import parsed, parser_of
from tools.benchmarks.real_width import build, wan, wan_inputs
from tools.benchmarks.results import Result, Tell, line

Size = tuple[int, int, int]  # frames, height, width


@dataclass(frozen=True, slots=True)
class Decoding:
    name: str  # of tests.decoders
    size: Size
    dtype: torch.dtype


FULL = (
    Decoding("kl", (1, 512, 512), torch.bfloat16),
    Decoding("kl", (1, 1024, 1024), torch.bfloat16),
    Decoding("wan", (81, 480, 832), torch.float32),
    Decoding("wan", (81, 720, 1280), torch.float32),
    Decoding("hunyuanvideo", (33, 720, 1280), torch.bfloat16),
    Decoding("cogvideox", (49, 480, 720), torch.bfloat16),
    Decoding("ltx", (121, 512, 704), torch.bfloat16),
)
TINY = (Decoding("kl", (1, 32, 32), torch.float32),)
DENOISED: Sequence[Size] = ((17, 480, 832), (81, 480, 832), (81, 720, 1280))


def run(argv: Sequence[str], tell: Tell) -> None:
    """Tell of each network and size what was computed and what was measured."""
    options = _options(argv)
    numerics_of(Options(), threads=1, device=options.device).apply()
    with torch.no_grad():
        for decoding in TINY if options.tiny else FULL:
            for result in _decoded(decoding, options.device):
                tell(result)
        for result in _denoised([(5, 64, 64)] if options.tiny else DENOISED, options):
            tell(result)


def _decoded(decoding: Decoding, device: str) -> Iterator[Result]:
    counted, (frames, height, width) = COUNTED[decoding.name], decoding.size
    vae: Any = build(lambda: getattr(diffusers, counted.class_name)(**counted.config), device, decoding.dtype)
    latents = latents_of(counted, decoding.size, device, decoding.dtype)
    for tiling in (False, True):
        if tiling:
            vae.enable_tiling()
        # counted in two bytes a value
        peak = decode_peak(counted, height, width, frames, tiling=tiling)
        computed = peak * decoding.dtype.itemsize / 2e9
        named = {
            "network": f"{decoding.name}, decoder" + ", tiles" * tiling,
            "size": f"{frames} x {height} x {width}",
            "dtype": str(decoding.dtype).removeprefix("torch."),
        }
        yield named | _measured(lambda: vae.decode(latents, return_dict=False), computed, device)


def _denoised(sizes: Sequence[Size], options: argparse.Namespace) -> Iterator[Result]:
    """Measure two layers: what one has computed with is free before the next."""
    dtype = torch.float32 if options.tiny else torch.bfloat16
    network = build(lambda: wan(layers=2, heads=2 if options.tiny else 12), options.device, dtype)
    for frames, height, width in sizes:
        inputs = wan_inputs(torch.Generator().manual_seed(1), height=height, width=width, num_frames=frames)
        moved = {
            name: value.to(options.device, dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
            if isinstance(value, torch.Tensor)
        }
        named = {
            "network": "Wan 1.3B",
            "size": f"{frames} x {height} x {width}",
            "dtype": str(dtype).removeprefix("torch."),
        }
        on_meta = {name: value.to("meta") for name, value in moved.items()}
        stub = copy.deepcopy(network).to("meta")
        with metered([*stub.parameters(), *stub.buffers(), *on_meta.values()]) as meter:
            stub(**on_meta)
        yield named | _measured(lambda moved=moved: network(**moved), meter.peak / 1e9, options.device)


def latents_of(counted: Counted, size: Size, device: str, dtype: torch.dtype) -> torch.Tensor:
    channels, step, pixels = counted.latent
    frames, height, width = size
    places = ((frames - 1) // step + 1,) if step else ()
    return torch.randn(1, channels, *places, height // pixels, width // pixels).to(device, dtype)


def _measured(run_it: Callable[[], Any], computed: float, device: str) -> Result:
    found: Result = {"computed GB": round(computed, 2), "measured GB": "", "reserved GB": "", "error": ""}
    is_gpu = device.startswith("cuda")
    free_memory()
    if is_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    held = (torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)) if is_gpu else (0, 0)
    try:
        run_it()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        found["error"] = "out of memory"
    if is_gpu:
        peaks = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        gigabytes = [round((peak - before) / 1e9, 2) for peak, before in zip(peaks, held, strict=True)]
        found |= dict(zip(("measured GB", "reserved GB"), gigabytes, strict=True))
    return found


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--tiny", action="store_true", help="small ones, for machines without a GPU")
    return parsed(parser, argv)


def main() -> None:
    run(sys.argv[1:], lambda result: print(line(result), flush=True))


if __name__ == "__main__":
    main()
