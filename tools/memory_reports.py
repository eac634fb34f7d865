"""docs/memory.md, what people report of GPU memory: `python -m tools.memory_reports > docs/memory.md`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from framefleet.jobs.model.descriptions import fitting
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

For one row of native size, the fastest options that fit: *all* needs no offload, *model* and *group* are
`offload: model` and `offload: group`. *tiled* is `vae_tiling: true`, which is off by default as it changes
pixels where a frame is larger than a tile ([options.md](options.md)). *no* does not fit: render smaller or
shorter, or add `layerwise_casting` or `quantization`. `framefleet plan --gpu-memory 24GB` says it for a job.

{memory}

**Computed, not measured.** *held GB* is what `offload: group` keeps of the denoiser's weights on the GPU at
once: its largest block and all that is in no block, counted on the real classes, times the dtype's bytes.
*activations* are a rule of thumb: tokens of one row, times their channels, times {widths} (what a block
holds at its worst moment), times 2 bytes, times 2 where both prompts of guidance share a forward.

*decoding* is what the autoencoder holds, as a whole and *in tiles*: every tensor, counted on the meta device
(`python -m tests.decoders`); 1 GB where it was not counted (Stable Video Diffusion, Allegro, HunyuanImage,
Qwen-Image 2.1, Open-Sora's DC-AE). Denoising and decoding come one after the other, so the larger counts.

*all* takes the sum of all weights, *model* the largest component with what it computes, *group* the held part
(of a text encoder its largest layer; an autoencoder counts whole). {fixed:g} GB is added for CUDA and its
workspaces, and a row fits where the total is at most the card's. Fragmentation and other programs are not in
it: near the limit, try. `framefleet plan` also shows what a worker has measured ([plan.md](plan.md)).

## What people report

{reported}

Many tools print GiB and call it GB: 60.1 GiB are 64.5 GB. What is reported also holds workspaces and
fragments.
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
