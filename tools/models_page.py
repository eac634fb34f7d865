"""docs/models.md, from presets and measurements: `python -m tools.models_page > docs/models.md`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from framefleet.jobs.model.descriptions import KINDS, frames_text, in_words, makes, shared, size_text
from framefleet.pipeline.model.families.family import Preset
from framefleet.pipeline.model.families.measurements import Finding, Measurements, read_measured
from framefleet.pipeline.model.families.registry import PRESETS

HEADS = (
    "class",
    "makes",
    "exact in a batch",
    "shares forwards",
    "workers",
    "sound",
    "presets",
    "what is not supported, and why",
)

_PAGE = """\
# Models

<!-- Made from pipeline/model/families: python -m tools.models_page > docs/models.md -->

Every pipeline of diffusers whose call takes text, numbers, images and videos can be rendered; what came of it
for each class is [measured](#what-was-measured). Those of the next table are known by their configs, whatever
the folder is called: their *preset* gives what neither the row nor `defaults:` does, before the defaults of
the pipeline's `__call__`, which count alone for all others. Fine-tunes with the same configs count as their
base.

`framefleet model list` prints the presets, `framefleet model info MODEL` what one model's preset sets and
what was measured of its class, `framefleet plan` the sizes that rows come to; every record holds the
arguments that were used.

## What they render

{models}

*Weights GB* is computed: number of parameters, as built from the published configs, times the bytes of the
dtype. It is on the GPU before anything is rendered; activations, which grow with size and frames, come on
top and are not in it. *Largest GB* is the largest component alone.

## Modular pipelines

Folders with a `modular_model_index.json` (`ModularPipeline` of diffusers) are rendered as all others,
with the bits of plain modular calls; where a folder has a `model_index.json` too, that one counts. What a
row may give are the inputs of the pipeline's blocks, and the scales of its guiders, which diffusers keeps
as components: `guidance_scale` is that of `guider`, `guidance_scale_2` of `guider_2`,
`audio_guidance_scale` of `audio_guider`. A scale is its row's alone, and switches a guider on that is
off. Blocks are chosen by the arguments of a row, so `framefleet plan` refuses a row with an argument that
none of its blocks reads, without one that they need, or whose blocks call a component that the model
lacks.

All components lie in the model's own folder, each in one of its name, and are of a class of diffusers or
transformers: what an index says of other repositories is not fetched. Bring such a model into one folder
first:

    pipe = ModularPipeline.from_pretrained("org/name")
    pipe.load_components()
    pipe.save_pretrained("FOLDER")

Not supported: blocks of a model's own (`modular_config.json`: code of the repository); guiders that
change the network around their forwards (`SkipLayerGuidance`, `PerturbedAttentionGuidance` and their
like); pipelines that give sound alone; schedules of guidance, step
caches other than `mag`, recipes of a second pipeline, and training.

What a pipeline states about itself counts before any preset: `fps`, `min_duration` and `max_duration`,
`canvas_multiple`, the frames of a chunk of its autoencoder, default sizes. If a component is null in the
index, the workflows that need it are refused, by rows, and a model that can run none of its workflows as a
whole.

## Which offload fits which GPU

[memory.md](memory.md) has it for each of these models.

## Dtypes

The column above is what `dtype: auto`, the default, means on a GPU. Without a preset it is bf16,
or fp32 where diffusers fails in bf16; on a CPU it is fp32 for all. What you write counts as in diffusers:

| you write | it is |
| --- | --- |
| `dtype: bf16` | bf16 for every component, the autoencoder too |
| `dtype: {{default: bf16, vae: fp32}}` | fp32 for the autoencoder, bf16 for the others |
| `dtype: {{text_encoder: fp32}}` | fp32 for the text encoder, and auto for the others |

A record holds what was asked for in `numerics`, and what it came to in `environment`.

## Licences and downloads

Licences are those of the weights: read them before you use what they make. `model.license` of a job names
one; without it, the metadata of the model's card (`README.md`) does, then the preset of this page. It is a
column of every record and of exports, and in C2PA manifests; `framefleet plan` and `framefleet model info`
print it with what is unusual in it (territory, commercial use, training on outputs, attribution) and where
that is written. An unknown licence is called unknown. These are facts, not advice. Some models ask you to
agree on the hub first; then `HF_TOKEN` opens them. *Download GB* is left out where it could not be checked;
`framefleet model info MODEL` reads the exact sizes without fetching the weights.

{licences}

## Remarks

A row uses the scheduler that the model ships with, unless its `scheduler` cell names another. Pipelines that
have none (Echo, the latent upsamplers of LTX) take no such cell; their records say `none`.

{remarks}

## What was measured

Rows that differ in prompt, seed, steps, guidance and size were rendered by two workers, or in one process
(*workers* 0), with tiny models of random weights in the dtype above and diffusers {diffusers}
(`python -m tools.conformance`). *Exact in a batch*: all rows have
the bits of plain calls of diffusers. *Shares forwards*: rows to a forward, in the mean; the first forwards of
each size run row by row, so a few short rows stay far below what many long ones reach. Exactness does not
depend on it: rows that cannot share a forward have one each.

{measured}

These were tried and render nothing:

{not_rendered}

A class that is in neither table works with its call's defaults, as far as it takes text, numbers, images and
videos. `framefleet model list --classes` has a line for each. Not tried, of the installed diffusers:

{not_tried}

Models that start from an image or a video take a column `image` or `video` that holds its path or URL. Text
models whose weights can do that too take it with a [recipe](recipes.md).
"""


def page() -> str:
    """Return the text of docs/models.md."""
    known, measured = PRESETS, read_measured()
    return _PAGE.format(
        models=table(
            ("preset", "makes", "size", "frames", "steps", "guidance", "dtype", "weights GB", "largest GB"),
            ((p.name, makes(p), size_text(p), frames_text(p), *_numbers(p)) for p in known),
        ),
        licences=table(
            ("model", "licence", "download GB"),
            (
                (f"`{model}`", p.licence, f"{p.download_gb:g}" if p.download_gb else "")
                for p in known
                for model in p.models
            ),
        ),
        remarks=table(
            ("preset", "scheduler", "remarks"),
            ((p.name, p.scheduler, p.note) for p in known if p.scheduler or p.note),
        ),
        diffusers=measured.diffusers,
        measured=table(HEADS, measured_rows(measured)),
        not_rendered=table(
            ("class", "why"), ((f"`{name}`", why) for name, why in measured.not_rendered.items())
        ),
        not_tried=table(("makes", "classes"), not_tried(measured)),
    )


def measured_rows(measured: Measurements) -> Iterator[tuple[str, ...]]:
    """Yield a row for every class that renders: of videos, of images, and those that diffusers lacks."""
    tried = dict.fromkeys(finding.class_name for finding in measured.findings.values())
    order = [name for names in measured.classes.values() for name in names]
    for name in sorted(tried, key=lambda name: order.index(name) if name in order else len(order)):
        yield _row(name, measured.of_class(name))


def not_tried(measured: Measurements) -> Iterator[tuple[str, str]]:
    """Yield what the classes that were left out make, and their names."""
    tried = {finding.class_name for finding in measured.findings.values()} | measured.not_rendered.keys()
    for kind, names in measured.classes.items():
        yield KINDS[kind], ", ".join(f"`{name}`" for name in names if name not in tried) or "none"


def _row(name: str, findings: Sequence[Finding]) -> tuple[str, ...]:
    rows, equal = sum(finding.rows for finding in findings), sum(finding.equal for finding in findings)
    presets = (preset.name for preset in PRESETS if name in preset.pipelines)
    return (
        f"`{name}`",
        _joined(finding.makes for finding in findings),
        "yes" if equal == rows else f"{equal} of {rows} rows",
        shared(findings),
        _joined(str(finding.workers) for finding in findings),
        _joined(finding.sound for finding in findings).replace("none", ""),
        ", ".join(presets),
        _joined(finding.why for finding in findings if finding.why),
    )


def _joined(texts: Iterator[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _numbers(preset: Preset) -> tuple[str, ...]:
    weights = preset.weights_gb().values()
    steps = str(preset.arguments["num_inference_steps"])
    return steps, _guidance(preset), in_words(preset), f"{sum(weights):.1f}", f"{max(weights):.1f}"


def _guidance(preset: Preset) -> str:
    names = ("guidance_scale", "guidance_scale_2")
    return ", ".join(f"{preset.arguments[name]:g}" for name in names if name in preset.arguments)


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    print(page(), end="")
