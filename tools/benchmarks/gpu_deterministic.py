"""What `cudnn.deterministic`, which is always on, costs decoders, and which bits change without it.

    python -m tools.benchmarks.gpu_deterministic --device cuda

Each decoder decodes the same latents with it on and off, in turns: the least seconds of both, their ratio,
whether two decodes with it off are equal, and whether they equal those with it on. cuDNN never chooses by the
clock (`cudnn.benchmark`). A CPU and the stand-in have no cuDNN: the setting changes nothing there.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import diffusers
import torch
from torch import Tensor

from framefleet.pipeline.memory import free_memory, is_out_of_memory
from framefleet.pipeline.model.numerics import numerics_of
from framefleet.pipeline.model.options.schema import Options
from tests.decoders import COUNTED
from tests.tiny import BUILDERS
from tools.benchmarks.command_line import parsed, parser_of
from tools.benchmarks.gpu_peak import Decoding, latents_of
from tools.benchmarks.real_width import build
from tools.benchmarks.results import Result, Tell, line

TURNS = 3
Case = tuple[Any, Tensor, Result]  # a decoder, what it decodes, what it is called
# Wan's pipeline loads its decoder in fp32. HunyuanVideo's has no room for its preset's size without tiles.
FULL = (
    Decoding("wan", (81, 480, 832), torch.float32),
    Decoding("wan", (81, 480, 832), torch.bfloat16),
    Decoding("ltx", (121, 512, 704), torch.bfloat16),
    Decoding("hunyuanvideo", (33, 544, 960), torch.bfloat16),
)
TINY = ("wan", "ltx", "hunyuan")  # of tests.tiny


def run(argv: Sequence[str], tell: Tell) -> None:
    """Tell of each decoder what the setting costs and changes."""
    options = _options(argv)
    numerics_of(Options(), threads=1, device=options.device).apply()
    with torch.no_grad():
        for vae, latents, about in _tiny(options.device) if options.tiny else _full(options.device):
            tell(about | compared(vae, latents, options.device))
            free_memory()


def _full(device: str) -> Iterator[Case]:
    for decoding in FULL:
        counted = COUNTED[decoding.name]
        vae = build(lambda: getattr(diffusers, counted.class_name)(**counted.config), device, decoding.dtype)  # noqa: B023
        latents = latents_of(counted, decoding.size, device, decoding.dtype)
        yield vae, latents, _about(decoding.name, decoding.size, decoding.dtype)


def _tiny(device: str) -> Iterator[Case]:
    for name in TINY:
        vae = BUILDERS[name]().vae.eval().to(device)
        channels = vae.config.get("z_dim") or vae.config.latent_channels
        yield vae, torch.randn(1, channels, 2, 4, 4).to(device), _about(name, ("tiny",), torch.float32)


def _about(name: str, size: Sequence[Any], dtype: torch.dtype) -> Result:
    return {
        "decoder": name,
        "frames": " x ".join(map(str, size)),
        "dtype": str(dtype).removeprefix("torch."),
    }


def compared(vae: Any, latents: Tensor, device: str) -> Result:
    """Decode in turns, on and off. The first turn pays for what is prepared once, and does not count."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    decoded: dict[bool, list[Tensor]] = {True: [], False: []}
    found: Result = {
        "on s": "",
        "off s": "",
        "on / off": "",
        "repeats, off": "",
        "equal to on": "",
        "error": "",
    }
    before = torch.backends.cudnn.deterministic
    try:
        for _ in range(1 + TURNS):
            for is_on in (True, False):
                torch.backends.cudnn.deterministic = is_on
                frames, taken_s = _timed(vae, latents, device)
                seconds[is_on].append(taken_s)
                decoded[is_on] = [*decoded[is_on], frames.cpu()][-2:]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return found | {"error": "out of memory"}
    finally:
        torch.backends.cudnn.deterministic = before
    on, off = (min(seconds[is_on][1:]) for is_on in (True, False))
    return found | {
        "on s": round(on, 4),
        "off s": round(off, 4),
        "on / off": round(on / off, 3),
        "repeats, off": torch.equal(*decoded[False]),
        "equal to on": torch.equal(decoded[False][0], decoded[True][0]),
    }


def _timed(vae: Any, latents: Tensor, device: str) -> tuple[Tensor, float]:
    is_gpu = device.startswith("cuda")
    if is_gpu:
        torch.cuda.synchronize()
    started = time.perf_counter()
    (frames,) = vae.decode(latents, return_dict=False)
    if is_gpu:
        torch.cuda.synchronize()
    return frames, time.perf_counter() - started


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--tiny", action="store_true", help="small ones, for machines without a GPU")
    return parsed(parser, argv)


def main() -> None:
    run(sys.argv[1:], lambda result: print(line(result), flush=True))


if __name__ == "__main__":
    main()
