"""docs/memory.md, with what people report: `python -m tools.memory_reports > docs/memory.md`."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from framefleet.pipeline.model.families.registry import PRESETS
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.model.sources.source import open_source
from framefleet.pipeline.model.sources.weights import Weights
from framefleet.pipeline.model.specs.model_index import is_denoiser
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.request import Request
from framefleet.plugins.memory.footprint import CARDS_GB, FIXED_GB, Footprint, OffloadWay, Way
from framefleet.plugins.memory.memory import MemoryCounts
from framefleet.plugins.models.descriptions import fitting
from tests.full_size import FULL_SIZE, write_full_size
from tools.models_page import table

_BLOG = "[Hugging Face, on an A100](https://huggingface.co/blog/video_gen)"
_WAN = "[diffusers 0.33](https://huggingface.co/docs/diffusers/v0.33.0/api/pipelines/wan)"
_COGVIDEOX = "[diffusers](https://github.com/huggingface/diffusers/pull/9203)"
_Size = tuple[int, int, int]  # frames, height, width


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """reported: in the source's words. note: why it is not what is counted, if it is far from it."""

    model: str
    size: _Size
    reported: str
    source: str
    offload: OffloadWay = "none"
    vae_tiling: bool = False
    note: str = ""


REPORTS = (
    MemoryReport("hunyuanvideo", (121, 512, 768), "60.1 GB", _BLOG),
    MemoryReport("hunyuanvideo", (121, 512, 768), "43.6 GB", _BLOG, vae_tiling=True),
    MemoryReport("hunyuanvideo", (121, 512, 768), "28.9 GB", _BLOG, offload="model"),
    MemoryReport("ltx-video", (121, 512, 768), "17.8 GB", _BLOG),
    MemoryReport("cogvideox1.5-5b", (121, 512, 768), "36.5 GB", _BLOG),
    MemoryReport("cogvideox-2b", (49, 480, 720), "about 19 GB to decode", _COGVIDEOX, offload="model"),
    MemoryReport("wan2.1-t2v-1.3b", (81, 480, 832), "11 GB", _WAN, offload="model"),
    MemoryReport("wan2.1-t2v-14b", (81, 480, 832), "at least 35 GB", _WAN, offload="model"),
)


@functools.cache
def counted(model: str, size: _Size, tiling: bool) -> Footprint:
    """Return what `plan` counts for a row of a published model, in the dtypes of its preset."""
    with tempfile.TemporaryDirectory() as place:
        folder = write_full_size(model, Path(place))
        spec, source = inspect_model(folder), open_source(str(folder))
        files = tuple(source.files)
        weights = Weights(
            source=source, class_name=spec.class_name, components=(), files=files, expected={}, lock=None
        )
        frames, height, width = size
        row = {"prompt": "a", "num_frames": frames, "height": height, "width": width}
        settings = ModelSettings(path=str(folder), dtype=_dtype(model))
        with closing(MemoryCounts(settings, weights, spec, folder, is_on_cpu=False)) as counts:
            request = Request(arguments=row | {"num_inference_steps": 2})
            footprint = counts.count(request, Way(vae_tiling=tiling))
    assert not footprint.missing, footprint.missing
    return footprint


def _dtype(model: str) -> dict[str, str]:
    return next(preset for preset in PRESETS if preset.name == model).auto_dtypes


def reported_rows() -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table."""
    for report in REPORTS:
        footprint = counted(report.model, report.size, report.vae_tiling)
        way = str(Way(offload=report.offload, vae_tiling=report.vae_tiling))
        computed, size = f"{footprint.peak_gb(report.offload):.1f}", " x ".join(map(str, report.size))
        reported = f"{report.reported}{report.note and ': '}{report.note}"
        yield report.model, size, f"`{way}`" if way else "", computed, reported, report.source


_PAGE = """\
# Memory: which options fit which GPU

<!-- Made by python -m tools.memory_reports > docs/memory.md -->

`framefleet plan --gpu-memory 24GB` shows the memory that the largest row of a job needs, and the fastest
[options](options.md) that fit. `framefleet model info MODEL` shows the options that fit GPUs of 8 to 141 GB.
Both work before the weights are downloaded. The numbers are [computed](#how-it-is-computed), not measured.
Sizes are those of the reports below, not the presets' own.

| column, value | meaning |
| --- | --- |
| held GB | weights of the denoiser that are on the GPU at the same time with `offload: group` |
| denoising GB | memory that the denoiser needs for one row, besides its weights |
| decoding GB | memory that the autoencoder needs to decode one row at once |
| in tiles | the same with `vae_tiling: true`, in GB |
| *all* | the whole model fits: no offload |
| *model*, *group* | `offload: model`, `offload: group` |
| *tiled* | also `vae_tiling: true` |
| *no* | does not fit: render smaller or shorter clips, or use `layerwise_casting` or `quantization` |

{memory}

## How it is computed

framefleet calls the model's own pipeline with the row's arguments, on torch's meta device, where tensors
have shapes and no values. Each tensor counts from the operation that makes it until nothing refers to it
any more. A recipe of your own is only called with `plan --hollow` or `--probe`; otherwise `plan` counts one
call of the pipeline.

With *all*, the GPU needs all weights plus what the largest phase (encoding, denoising, decoding) needs.
With *model* and *group*, each phase must fit by itself. {fixed:g} GB is added for CUDA and its workspaces.
Workspaces of convolutions, fragmentation, LoRAs, compiled graphs and other programs are not included: near
the limit, test it.

## What people report

| preset | frames x height x width | options | computed GB | reported | source |
| --- | --- | --- | --- | --- | --- |
{reported}

Many tools print GiB and call it GB: 60.1 GiB are 64.5 GB.
"""


def page() -> str:
    """Return the text of docs/memory.md."""
    heads = ("preset", "frames x height x width", "held GB", "denoising GB", "decoding GB", "in tiles")
    cards = [f"{card} GB" for card in CARDS_GB]
    reported = "\n".join(f"| {' | '.join(row)} |" for row in reported_rows())
    memory = table((*heads, *cards), map(_memory, FULL_SIZE))
    return _PAGE.format(memory=memory, fixed=FIXED_GB, reported=reported)


def _memory(model: str) -> tuple[str, ...]:
    size = next(report.size for report in REPORTS if report.model == model)

    def count(way: Way) -> Footprint:
        return counted(model, size, way.vae_tiling)

    whole = count(Way())
    held = max(one.held for name, one in whole.networks.items() if is_denoiser(name)) / 1e9
    computed = (held, whole.activations_gb, whole.decoding_gb, count(Way(vae_tiling=True)).decoding_gb)
    fits = [fitting(count, card) for card in CARDS_GB]
    return model, " x ".join(map(str, size)), *(f"{gb:.1f}" for gb in computed), *fits


if __name__ == "__main__":
    print(page(), end="")
