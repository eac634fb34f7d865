"""Exactness of one denoiser at real width: which modules need pins at which sizes, and what that costs.

    python -m tools.benchmarks.real_width --device cuda        # Wan 1.3B's, SD 1.5's, a decoder
    python -m tools.benchmarks.real_width --device cuda --matmul default
    python -m tools.benchmarks.real_width --device cpu --tiny  # the same path at toy width, anywhere

Random weights: bits and speed do not depend on what a model has learned. Where products are not split, and
Triton is there, it is measured again with Triton for the linear layers that were pinned, and for all.
Run it twice: equal digests say that another process repeats the bits.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UNet2DConditionModel, WanTransformer3DModel
from torch import Tensor, nn

from framefleet.pipeline.memory import free_memory, is_out_of_memory
from framefleet.pipeline.model.numerics import numerics_of
from framefleet.pipeline.model.options.schema import Options
from framefleet.pipeline.render.fused.calls import Call, Method, digest_of, parse_call
from framefleet.pipeline.render.fused.concatenation import layouts
from framefleet.pipeline.render.fused.exact import are_equal, probe
from framefleet.pipeline.render.fused.pins import Plan, run_fused
from tools.benchmarks.command_line import parsed, parser_of
from tools.benchmarks.results import Result, Tell, line

SIZES = (2, 3, 4, 6, 8)
MAX_NAMED = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """sizes: of forwards, besides those of one row."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[torch.Generator], dict[str, Any]]
    sizes: Sequence[int]


class Decoder(nn.Module):
    """Wan 2.1's decoder, whose convolutions over time are what `cudnn.deterministic` may slow down."""

    def __init__(self, *, tiny: bool) -> None:
        super().__init__()
        self.vae = AutoencoderKLWan(base_dim=8 if tiny else 96)

    def forward(self, latents: Tensor) -> tuple[Tensor]:
        return self.vae.decode(latents, return_dict=False)


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
    layers, heads, sizes = (2, 2, [2]) if tiny else (30, 12, SIZES)
    shapes = [(64, 64, 5)] if tiny else [(256, 256, 17), (480, 832, 33)]
    wans = [
        Case(
            name=f"Wan {width}x{height}x{num_frames}",
            build=lambda: wan(layers=layers, heads=heads),
            inputs=lambda g, h=height, w=width, f=num_frames: wan_inputs(g, height=h, width=w, num_frames=f),
            sizes=sizes,
        )
        for height, width, num_frames in shapes
    ]
    size = 128 if tiny else 512
    sd = Case(
        name=f"Stable Diffusion {size}x{size}",
        build=lambda: unet(tiny=tiny),
        inputs=lambda g: unet_inputs(g, size=size),
        sizes=sizes,
    )
    latents = (1, 16, 2, 4, 4) if tiny else (1, 16, 5, 60, 104)
    decoder = Case(
        name="Wan's decoder",
        build=lambda: Decoder(tiny=tiny),
        inputs=lambda g: {"latents": torch.randn(latents, generator=g)},
        sizes=(),
    )
    return [wans[0], sd, decoder, *wans[1:]]  # what takes longest comes last


def run(argv: Sequence[str], tell: Tell) -> None:
    """Tell what is measured, as it is."""
    for result in _results(_options(argv)):
        tell(result)


def _results(options: argparse.Namespace) -> Iterator[Result]:
    numerics = numerics_of(Options(matmul=options.matmul), threads=1, device=options.device)
    numerics.apply()
    errors: list[Exception] = []
    for case in cases(tiny=options.tiny):
        try:
            yield from _of_case(case, numerics.matmul or "cpu", options)
        except Exception as error:  # the other cases tell something all the same
            errors.append(error)
        free_memory()
    if errors:
        raise ExceptionGroup("some cases failed", errors)


def _of_case(case: Case, products: str, options: argparse.Namespace) -> Iterator[Result]:
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[options.dtype]
    with torch.no_grad():
        bench = Bench(case, build(case.build, options.device, dtype), options.device, dtype)
        yield from bench.alone(products)
        if not options.alone:
            yield from bench.all_products(products)


def build(make: Callable[[], nn.Module], device: str, dtype: torch.dtype) -> nn.Module:
    """Return a network of random weights, made on the device, in the dtypes that a loaded one has."""
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            module = make().eval()
    finally:
        torch.set_default_dtype(default)
    in_fp32 = set(getattr(module, "_keep_in_fp32_modules", None) or ())
    for name, weight in module.named_parameters():
        if in_fp32.intersection(name.split(".")):
            weight.data = weight.data.float()
    return module


class Bench:
    """One network and what calls it."""

    def __init__(self, case: Case, module: nn.Module, device: str, dtype: torch.dtype) -> None:
        self._case, self._module = case, module
        generator = torch.Generator().manual_seed(1)
        self._calls = [
            _call(case.inputs(generator), device, dtype) for _ in range(max(case.sizes, default=1))
        ]
        self._outputs: list[Any] = []
        self._one_s = 0.0
        self._pins: set[str] = set()

    def alone(self, products: str) -> Iterator[Result]:
        """Run every row by itself."""
        call = self._calls[0]
        _alone(self._module, call)  # prepares kernels
        timed = [_timed(lambda call=call: _alone(self._module, call)) for call in self._calls]
        self._outputs = [output for output, _ in timed]
        self._one_s = min(seconds for _, seconds in timed)
        digest = hashlib.sha256(b"".join(digest_of(output[0]) for output in self._outputs)).hexdigest()
        yield {
            "case": self._case.name,
            "products": products,
            "rows/s alone": round(1 / self._one_s, 3),
            "repeats": are_equal(_alone(self._module, call), self._outputs[0]),
            "deterministic costs": self._cost_of_deterministic(),
            "digest": digest[:16],
        }

    def all_products(self, products: str) -> Iterator[Result]:
        """Measure sizes, and again with Triton for those linear layers that were pinned, then for all."""
        yield from self.sizes(products)
        if products != "no_split_k" or find_spec("triton") is None or not self._case.sizes:
            return
        from framefleet.pipeline.model.triton_linear import TritonLinear, use_triton

        pinned = [part for name, part in self._module.named_modules() if name in self._pins]
        for part in pinned:
            use_triton(part)
        count = sum(isinstance(part, TritonLinear) for part in self._module.modules())
        for name in (f"no_split_k, triton for {count}", "triton"):
            if name == "triton":
                use_triton(self._module)
            yield from self.alone(name)
            yield from self.sizes(name)

    def sizes(self, products: str) -> Iterator[Result]:
        for size in self._case.sizes:
            named = {"case": self._case.name, "products": products, "rows": size}
            try:
                yield named | self._size(size)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                free_memory()
                yield named | {"error": "out of memory"}
                return

    def _size(self, size: int) -> Result:
        module, calls, axes = self._module, self._calls[:size], self._calls[0].axes
        outputs = [(output, ()) for output in self._outputs[:size]]  # and nothing that is held besides
        fast = Plan(axes, {}, layouts(outputs[0]))
        fused, _ = _timed(lambda: run_fused(Method(module), calls, fast))
        _, fast_s = _timed(lambda: run_fused(Method(module), calls, fast))
        plan, probe_s = _timed(lambda: probe(Method(module), calls, outputs, axes))
        exact_s = _timed(lambda: run_fused(Method(module), calls, plan))[1] if plan else None
        names = sorted(plan.pins) if plan else []
        self._pins.update(names)
        return {
            "fast": round(size * self._one_s / fast_s, 3),
            "fast is equal": are_equal(fused, outputs),
            "exact": round(size * self._one_s / exact_s, 3) if exact_s else "impossible",
            "probe, in forwards": round(probe_s / self._one_s, 1),
            "pins": len(names),
            "pinned": ", ".join(names[:MAX_NAMED]) + " ..." * (len(names) > MAX_NAMED),
        }

    def _cost_of_deterministic(self) -> float:
        """Return how many times longer a row takes than with whatever convolutions cuDNN likes best."""
        seconds = {True: self._one_s}
        for is_deterministic in (False, True):
            torch.backends.cudnn.deterministic = is_deterministic
            _alone(self._module, self._calls[0])
            runs = [_timed(lambda: _alone(self._module, self._calls[0]))[1] for _ in range(3)]
            seconds[is_deterministic] = min(runs)
        return round(seconds[True] / seconds[False], 3)


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


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--matmul", choices=("default", "no_split_k"), default="no_split_k")
    parser.add_argument("--alone", action="store_true", help="one row at a time only")
    parser.add_argument("--tiny", action="store_true", help="toy width, for machines without a GPU")
    return parsed(parser, argv)


def main() -> None:
    run(sys.argv[1:], lambda result: print(line(result), flush=True))


if __name__ == "__main__":
    main()
