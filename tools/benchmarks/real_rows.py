"""Rows per second of pipelines of real width: exact, fast, one at a time; with other kernels, and compiled.

    python -m tools.benchmarks.real_rows --device cuda        # Wan 1.3B at 480p, SD 1.5 at 512 and 1024
    python -m tools.benchmarks.real_rows --device cpu --tiny  # the same path with tiny pipelines, anywhere

Few steps and no guidance, as distilled models are used. Random weights, made on the device; the text encoder
is a tiny one, as rows share what it returns anyway. Frames are not encoded.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLWan, UNet2DConditionModel, WanTransformer3DModel
from torch import nn

from framefleet import Audit, Batching, Clip, Model, Renderer, Request
from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.environment import environment
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.model.numerics import numerics_of
from framefleet.pipeline.model.options.offload import modules_of
from framefleet.pipeline.model.options.schema import Options, read_options
from framefleet.pipeline.model.options.tuning import check_options, tune
from framefleet.pipeline.model.sources.components import components_in
from framefleet.pipeline.model.specs.dtypes import DTypeName, torch_dtype
from framefleet.pipeline.model.specs.spec import inspect_model
from tests.tiny import BUILDERS, SMALLEST
from tools.benchmarks.command_line import parsed, parser_of
from tools.benchmarks.real_width import build
from tools.benchmarks.results import Result, Tell, line

DTYPE: dict[bool, DTypeName] = {True: "fp32", False: "bf16"}  # by whether it is tiny
WAYS = {
    "one at a time": Batching(max_rows=1),
    "exact": Batching(),
    "fast": Batching(mode="fast"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """tiny: the pipeline that lends tokenizers, text encoder and scheduler.

    options: each set in addition to those before.
    """

    name: str
    tiny: str
    arguments: Mapping[str, Any]
    rows: int
    options: Sequence[Mapping[str, Any]]

    def networks(self) -> dict[str, Any]:
        """Return what makes the networks of real width; tiny text encoders have these widths."""
        if self.tiny == "wan":
            return {
                "transformer": lambda width: WanTransformer3DModel(
                    num_layers=30, num_attention_heads=12, ffn_dim=8960, text_dim=width
                ),
                "vae": lambda _: AutoencoderKLWan(),
            }
        return {
            "unet": lambda width: UNet2DConditionModel(
                sample_size=64,
                block_out_channels=(320, 640, 1280, 1280),
                cross_attention_dim=width,
                attention_head_dim=8,
            ),
            "vae": lambda _: _image_autoencoder(),
        }


KINDS = (
    Kind(
        name="Wan 1.3B, 832x480x17, 4 steps",
        tiny="wan",
        arguments={"height": 480, "width": 832, "num_frames": 17, "num_inference_steps": 4},
        rows=8,
        options=[{}, {"attention": "_flash_3"}, {"compile": True}],
    ),
    Kind(
        name="Stable Diffusion 1.5, 512x512, 8 steps",
        tiny="sd",
        arguments={"height": 512, "width": 512, "num_inference_steps": 8},
        rows=16,
        options=[{}, {"channels_last": True}, {"compile": True}],
    ),
    Kind(
        name="Stable Diffusion 1.5, 1024x1024, 8 steps",
        tiny="sd",
        arguments={"height": 1024, "width": 1024, "num_inference_steps": 8},
        rows=8,
        options=[{}],
    ),
)


def run(argv: Sequence[str], tell: Tell) -> None:
    """Tell what is measured, as it is."""
    for result in _results(_options(argv)):
        tell(result)


def _results(options: argparse.Namespace) -> Iterator[Result]:
    for kind in KINDS:
        if options.case in kind.name.lower():
            with tempfile.TemporaryDirectory() as folder:
                yield from _measured(kind, Path(folder), options)


def _measured(kind: Kind, folder: Path, options: argparse.Namespace) -> Iterator[Result]:
    model = pipeline_of(kind, folder, options)
    arguments = SMALLEST[kind.tiny] | {"num_inference_steps": 2} if options.tiny else kind.arguments
    rows = [
        Request(arguments={"guidance_scale": 1.0, **arguments, "prompt": "a red ball"}, seed=seed)
        for seed in range(2 if options.tiny else kind.rows)
    ]
    given: dict[str, Any] = {}
    errors: list[Exception] = []
    for more in kind.options[: 2 if options.tiny else None]:
        named = {"pipeline": kind.name, "options": line(given | more) or "none"}
        try:
            model = _tuned(model, read_options(given | more), folder)
        except ModelError as error:
            yield named | {"error": error.problem}
            continue
        given |= more
        try:
            yield from (named | result for result in _ways(model, rows))
        except Exception as error:  # the other options tell something all the same
            errors.append(error)
    if errors:
        raise ExceptionGroup("some options failed", errors)


def _ways(model: Model, rows: Sequence[Request]) -> Iterator[Result]:
    expected: list[str] = []
    for way, batching in WAYS.items():
        renderer = Renderer(model, batching, audit=Audit(every=0))
        first_s, _ = _rendered(renderer, rows)  # sizes are tried
        seconds, clips = _rendered(renderer, rows)
        found = [clip.frames_sha256 for clip in clips]
        expected = expected or found
        yield {
            "way": way,
            "rows/s": round(len(rows) / seconds, 3),
            "rows/s at first": round(len(rows) / first_s, 3),
            "rows a forward": round(sum(clip.batch_size for clip in clips) / len(clips), 2),
            "equal to one at a time": f"{sum(map(str.__eq__, found, expected))} of {len(found)}",
            "digest": hashlib.sha256("".join(found).encode()).hexdigest()[:16],
        }


def _rendered(renderer: Renderer, rows: Sequence[Request]) -> tuple[float, list[Clip]]:
    started = time.perf_counter()
    outcomes = list(renderer.render(rows))
    seconds = time.perf_counter() - started
    failures = [outcome.error for outcome in outcomes if not isinstance(outcome, Clip)]
    if failures:
        raise failures[0]
    clips = [outcome for outcome in outcomes if isinstance(outcome, Clip)]
    return seconds, sorted(clips, key=lambda clip: clip.request.seed)


def pipeline_of(kind: Kind, folder: Path, options: argparse.Namespace) -> Model:
    """Return a model as it is loaded, but for its weights, which no file holds."""
    device, dtype = options.device, DTYPE[options.tiny]
    numerics = numerics_of(Options(matmul=options.matmul), threads=1, device=device)
    numerics.apply()
    pipe = BUILDERS[kind.tiny]()
    for network in modules_of(pipe).values():
        network.to(torch_dtype(dtype)).eval()
    if not options.tiny:
        width = pipe.text_encoder.config.hidden_size
        for name, make in kind.networks().items():
            pipe.register_modules(**{name: build(partial(make, width), device, torch.bfloat16)})
    pipe.save_config(folder)
    for name, part in pipe.components.items():
        if hasattr(part, "save_config"):
            part.save_config(folder / name)
        elif isinstance(part, nn.Module):
            part.config.save_pretrained(folder / name)
        elif part is not None:
            part.save_pretrained(folder / name)
    pipe.set_progress_bar_config(disable=True)
    return Model(
        settings=ModelSettings(path=str(folder), dtype=dtype, device=device),
        pipe=pipe,
        spec=inspect_model(folder),
        digests={},
        digest="0" * 64,
        environment=environment(device, dtype, numerics),
    )


def _tuned(model: Model, options: Options, folder: Path) -> Model:
    device = model.environment["device"]
    settings, components = replace(model.settings, options=options), components_in(folder)
    check_options(settings, model.spec, folder=folder, components=components, parts=(), device=device)
    attention = tune(model.pipe, options, device=device)
    return replace(model, attention=attention, settings=settings)


def _image_autoencoder() -> AutoencoderKL:
    """Stable Diffusion 1.5's."""
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=512,
    )


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--matmul", choices=("default", "no_split_k"), default="no_split_k")
    parser.add_argument("--case", default="", help="only those with this in their names, in small letters")
    parser.add_argument("--tiny", action="store_true", help="tiny pipelines, for machines without a GPU")
    return parsed(parser, argv)


def main() -> None:
    run(sys.argv[1:], lambda result: print(line(result), flush=True))


if __name__ == "__main__":
    main()
