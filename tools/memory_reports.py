"""docs/memory.md, what people report of GPU memory: `python -m tools.memory_reports > docs/memory.md`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from framefleet.pipeline.model.families.family import Preset
from framefleet.pipeline.model.families.registry import PRESETS
from framefleet.pipeline.model.options.footprint import (
    CARDS_GB,
    FIXED_GB,
    WIDTHS,
    OffloadWay,
    Way,
    activations_gb,
    decoding_gb,
    peak_gb,
)
from framefleet.pipeline.model.specs.model_index import DENOISERS
from framefleet.plugins.models.descriptions import fitting
from tools.models_page import table

_BLOG = "[Hugging Face, on an A100](https://huggingface.co/blog/video_gen)"
_WAN = "[diffusers 0.33](https://huggingface.co/docs/diffusers/v0.33.0/api/pipelines/wan)"
_COGVIDEOX = "[diffusers](https://github.com/huggingface/diffusers/pull/9203)"


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """size: frames, height and width. reported: in the source's words."""

    preset: str
    size: tuple[int, int, int]
    reported: str
    source: str
    offload: OffloadWay = "none"
    vae_tiling: bool = False


_REPORTS = (
    MemoryReport("hunyuanvideo", (121, 512, 768), "60.1 GB", _BLOG),
    MemoryReport("hunyuanvideo", (121, 512, 768), "43.6 GB", _BLOG, vae_tiling=True),
    MemoryReport("hunyuanvideo", (121, 512, 768), "28.9 GB", _BLOG, offload="model"),
    MemoryReport("ltx-video", (121, 512, 768), "17.8 GB", _BLOG),
    MemoryReport("cogvideox1.5-5b", (121, 512, 768), "36.5 GB", _BLOG),
    MemoryReport("cogvideox-2b", (49, 480, 720), "about 19 GB to decode", _COGVIDEOX, offload="model"),
    MemoryReport("wan2.1-t2v-1.3b", (81, 480, 832), "11 GB", _WAN, offload="model"),
    MemoryReport("wan2.1-t2v-14b", (81, 480, 832), "at least 35 GB", _WAN, offload="model"),
)


def reported_rows() -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table."""
    presets = {preset.name: preset for preset in PRESETS}
    for report in _REPORTS:
        frames, height, width = report.size
        way = Way(offload=report.offload, vae_tiling=report.vae_tiling)
        row = {"num_frames": frames, "height": height, "width": width}
        computed = f"{peak_gb(presets[report.preset], way, row):.1f}"
        size = f"{frames} x {height} x {width}"
        yield report.preset, size, f"`{way}`" if str(way) else "", computed, report.reported, report.source


_PAGE = """\
# Memory: which options fit which GPU

<!-- Made by python -m tools.memory_reports > docs/memory.md -->

The columns of GPU sizes show the fastest options that fit for one row of the model's native size. For a
job, `framefleet plan --gpu-memory 24GB` shows them. All numbers are computed, not measured:
[how](#how-it-is-computed). The options are explained in [options.md](options.md).

| column, value | meaning |
| --- | --- |
| held GB | weights of the denoiser that are on the GPU at the same time with `offload: group` |
| activations GB | memory that the denoiser needs for one row, besides its weights |
| decoding GB | memory that the autoencoder needs to decode one row at once |
| in tiles | the same with `vae_tiling: true`, in GB |
| *all* | the whole model fits: no offload |
| *model*, *group* | `offload: model`, `offload: group` |
| *tiled* | also `vae_tiling: true`, which changes pixels if a frame is larger than a tile |
| *no* | does not fit: render smaller or shorter clips, or use `layerwise_casting` or `quantization` |

{memory}

## How it is computed

* *held GB*: the parameters of the largest block and of everything outside of blocks, counted on the real
  classes, times the bytes of the dtype.
* *activations GB*: a rule of thumb. It multiplies the tokens of one row, their channels, {widths} (the most
  that a block stores at one time) and 2 bytes, and doubles the result if both prompts of guidance share a
  [forward](glossary.md) (a call of the denoiser).
* *decoding GB* and *in tiles*: all tensors of the autoencoder, counted on the meta device
  (`python -m tests.decoders`). 1 GB where this was not counted (Stable Video Diffusion, Allegro,
  HunyuanImage, Qwen-Image 2.1, Open-Sora's DC-AE).

A row first denoises and then decodes. With *all*, the GPU needs all weights plus the larger of activations
and decoding. With *model* and *group*, each phase must fit by itself: the denoiser with its activations,
the text encoder, and the autoencoder with decoding. *group* counts only the held part of the denoiser, and
the largest layer of a text encoder. {fixed:g} GB is added for CUDA and its workspaces. A row fits if the
total is at most the memory of the GPU. This does not include fragmentation and other programs: near the
limit, test it. `framefleet plan` also shows what a worker has measured ([plan.md](plan.md)).

## What people report

{reported}

Many tools print GiB and call it GB: 60.1 GiB are 64.5 GB. Reported values also include workspaces and
fragmentation.
"""


def page() -> str:
    """Return the text of docs/memory.md."""
    cards = [f"{card} GB" for card in CARDS_GB]
    heads = ("preset", "held GB", "activations GB", "decoding GB", "in tiles", *cards)
    reports = ("preset", "frames x height x width", "options", "computed GB", "reported", "source")
    return _PAGE.format(
        memory=table(heads, map(_memory, PRESETS)),
        widths=WIDTHS,
        fixed=FIXED_GB,
        reported=table(reports, reported_rows()),
    )


def _memory(preset: Preset) -> tuple[str, ...]:
    held = max(gb for name, gb in preset.held_gb().items() if name.startswith(DENOISERS))
    computed = (activations_gb(preset), decoding_gb(preset), decoding_gb(preset, tiling=True))
    fits = [fitting(preset, card) for card in CARDS_GB]
    return preset.name, f"{held:.1f}", *(f"{gb:.1f}" for gb in computed), *fits


if __name__ == "__main__":
    print(page(), end="")
