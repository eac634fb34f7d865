"""Exactness of one denoiser at real width: which modules need pins at which sizes, and what that costs.

    python -m tests.benchmarks.real_width --device cuda          # Wan 1.3B's transformer, SD 1.5's UNet
    python -m tests.benchmarks.real_width --device cpu --tiny    # the same path at toy width, anywhere

Random weights: bits and speed do not depend on what a model has learned. Run it twice: equal digests say that
another process repeats the bits.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet2DConditionModel, WanTransformer3DModel
from torch import nn

from framefleet.pipeline.memory import free_memory, is_out_of_memory
from framefleet.pipeline.model.environment import set_numerics
from framefleet.pipeline.render.fused.calls import Call, digest_of, parse_call
from framefleet.pipeline.render.fused.exact import are_equal, probe
from framefleet.pipeline.render.fused.joining import layouts
from framefleet.pipeline.render.fused.pins import Plan, run_fused

SIZES = (2, 3, 4, 6, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[torch.Generator], dict[str, Any]]


def wan(*, layers: int, heads: int) -> nn.Module:
    """Wan2.1-T2V-1.3B's transformer at 30 layers and 12 heads of 128."""
    ffn = 8960 * heads // 12
    return WanTransformer3DModel(num_layers=layers, num_attention_heads=heads, ffn_dim=ffn, text_dim=4096)


def unet(*, tiny: bool) -> nn.Module:
    """Stable Diffusion 1.5's UNet."""
    channels = (32, 64, 64, 64) if tiny else (320, 640, 1280, 1280)
    return UNet2DConditionModel(
        sample_size=64, block_out_channels=channels, cross_attention_dim=768, attention_head_dim=8
    )


def wan_inputs(generator: torch.Generator, *, height: int, width: int, num_frames: int) -> dict[str, Any]:
    latents = (1, 16, (num_frames - 1) // 4 + 1, height // 8, width // 8)
    return {
        "hidden_states": torch.randn(latents, generator=generator),
        "timestep": torch.randint(1, 1000, (1,), generator=generator),
        "encoder_hidden_states": torch.randn((1, 512, 4096), generator=generator),
        "return_dict": False,
    }


def unet_inputs(generator: torch.Generator, *, size: int) -> dict[str, Any]:
    return {  # two rows of guidance for each row of the table
        "sample": torch.randn((2, 4, size // 8, size // 8), generator=generator),
        "timestep": torch.randint(1, 1000, (), generator=generator),
        "encoder_hidden_states": torch.randn((2, 77, 768), generator=generator),
        "return_dict": False,
    }


def cases(*, tiny: bool) -> list[Case]:
    layers, heads = (2, 2) if tiny else (30, 12)
    shapes = [(64, 64, 5)] if tiny else [(256, 256, 17), (480, 832, 33)]
    wans = [
        Case(
            name=f"Wan {width}x{height}x{num_frames}",
            build=lambda: wan(layers=layers, heads=heads),
            inputs=lambda g, h=height, w=width, f=num_frames: wan_inputs(g, height=h, width=w, num_frames=f),
        )
        for height, width, num_frames in shapes
    ]
    size = 128 if tiny else 512
    sd = Case(
        name=f"Stable Diffusion {size}x{size}",
        build=lambda: unet(tiny=tiny),
        inputs=lambda g: unet_inputs(g, size=size),
    )
    return [*wans, sd]


def measure(case: Case, device: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = case.build().eval().to(device=device, dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    calls = [_call(case.inputs(generator), device, dtype) for _ in range(max(SIZES))]
    outputs, one_s = [], float("inf")
    for call in calls:
        output, seconds = _timed(lambda call=call: _alone(module, call))
        outputs.append(output)
        one_s = min(one_s, seconds)
    digest = hashlib.sha256(b"".join(digest_of(output[0]) for output in outputs)).hexdigest()
    repeats = are_equal(_alone(module, calls[0]), outputs[0])
    print(f"\n{case.name} {dtype}: {1 / one_s:.2f} rows/s alone; repeats: {repeats}; digest {digest[:16]}")
    for size in SIZES:
        try:
            _measure_size(module, calls[:size], outputs[:size], one_s)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            free_memory()
            print(f"  {size} rows: out of memory")
            return


def _measure_size(module: nn.Module, calls: list[Call], outputs: list[Any], one_s: float) -> None:
    size, axes = len(calls), calls[0].axes
    outputs = [(output, ()) for output in outputs]  # and nothing that is held beside
    fast = Plan(axes, {}, layouts(outputs[0]))
    fused, _ = _timed(lambda: run_fused(module, module.forward, calls, fast))
    _, fast_s = _timed(lambda: run_fused(module, module.forward, calls, fast))
    plan, probe_s = _timed(lambda: probe(module, module.forward, calls, outputs, axes))
    line = f"  {size} rows: fast x{size * one_s / fast_s:.2f} (bit-equal: {are_equal(fused, outputs)})"
    if plan is None:
        print(f"{line}; cannot be made exact; probe {probe_s / one_s:.1f} one-row forwards")
        return
    _, exact_s = _timed(lambda: run_fused(module, module.forward, calls, plan))
    names = sorted(plan.pins)
    print(f"{line}; exact x{size * one_s / exact_s:.2f}; probe {probe_s / one_s:.1f} one-row forwards")
    print(f"    {len(names)} pinned: {', '.join(names[:12])}{' ...' if len(names) > 12 else ''}")


def _call(inputs: dict[str, Any], device: str, dtype: torch.dtype) -> Call:
    moved = {
        name: value.to(device, dtype if value.is_floating_point() else None)
        if isinstance(value, torch.Tensor)
        else value
        for name, value in inputs.items()
    }
    return parse_call("denoiser", (), moved)


def _alone(module: nn.Module, call: Call) -> Any:
    args, kwargs = call.arguments()
    return module.forward(*args, **kwargs)


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    result = function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--tiny", action="store_true", help="toy width, for machines without a GPU")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a GPU, and torch finds none")
    set_numerics(threads=1)
    with torch.no_grad():
        for case in cases(tiny=options.tiny):
            measure(case, options.device, {"bf16": torch.bfloat16, "fp32": torch.float32}[options.dtype])


if __name__ == "__main__":
    main()
