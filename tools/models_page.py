"""docs/models.md, from presets and measurements: `python -m tools.models_page > docs/models.md`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from framefleet.pipeline.model.families.family import Preset
from framefleet.pipeline.model.families.registry import PRESETS
from framefleet.plugins.models.descriptions import (
    KINDS,
    Finding,
    Measurements,
    frames_text,
    in_words,
    makes,
    read_measured,
    shared,
    size_text,
)

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

framefleet can render every diffusers pipeline whose call takes text, numbers, images and videos. The
results for each class are [below](#what-was-measured). A *preset* supplies values missing from the row and
from `defaults`. Models without a preset use the defaults of the pipeline's `__call__`. A model has a preset
if its configs match one in the next table, whatever its folder is called. Fine-tunes with the same configs
use the preset of their base model.

`framefleet model list` prints the presets. `framefleet model info MODEL` prints the values that a model's
preset sets, and the results for its class. `framefleet plan` prints the sizes of your rows. Every record
has the arguments that were used.

## What they render

{models}

*Weights GB* is computed: the number of parameters, from the published configs, times the bytes of the
dtype. The weights take this much GPU memory before anything is rendered. Activations need more memory,
which grows with the size and the frames. *Largest GB* is the weights of the largest component alone.

## Modular pipelines

Folders with a `modular_model_index.json` (`ModularPipeline` of diffusers) work like all others, and give
the same bits as plain modular calls. If a folder also has a `model_index.json`, that one is used. A row may
set the inputs of the pipeline's blocks, and the scales of its guiders, which are components in diffusers:
`guidance_scale` is the scale of `guider`, `guidance_scale_2` of `guider_2`, `audio_guidance_scale` of
`audio_guider`. Setting a scale turns its guider on, for this row only. The arguments of a row decide which
blocks run. So `framefleet plan` refuses a row with an argument that none of its blocks reads, a row that
lacks an argument, and a row whose blocks need a component that the model does not have.

Each component must be in the model's folder, in a subfolder with its name, and must have a class of
diffusers or transformers. framefleet fetches nothing from other repositories that an index names. First
bring such a model into one folder:

    pipe = ModularPipeline.from_pretrained("org/name")
    pipe.load_components()
    pipe.save_pretrained("FOLDER")

Not supported: a model's own blocks (`modular_config.json`, code in the repository); guiders that change the
network during their calls of it (`SkipLayerGuidance`, `PerturbedAttentionGuidance` and similar ones);
pipelines that return only sound; guidance schedules; step caches other than `mag`; recipes with a second
pipeline; training.

Values that a pipeline states about itself take precedence over a preset: `fps`, `min_duration` and
`max_duration`, `canvas_multiple`, the frames of a chunk of its autoencoder, default sizes. If a component
is null in the index, rows whose workflow needs it are refused. A model that can run none of its workflows
is refused as a whole.

## Which offload fits which GPU

`framefleet model info MODEL` shows it, before the weights are downloaded: [memory.md](memory.md).

## Dtypes

The column *dtype* above is what `dtype: auto`, the default, means on a GPU. Without a preset it is bf16, or
fp32 if diffusers fails in bf16. On a CPU it is always fp32. Other values have the same meaning as in
diffusers:

| you write | it is |
| --- | --- |
| `dtype: bf16` | bf16 for every component, the autoencoder too |
| `dtype: {{default: bf16, vae: fp32}}` | fp32 for the autoencoder, bf16 for the others |
| `dtype: {{text_encoder: fp32}}` | fp32 for the text encoder, and auto for the others |

A record has the requested dtype in `numerics`, and the resulting one in `environment`.

## Licences and downloads

These are the licences of the weights: read them before you use the clips. A job can set `model.license`.
Otherwise the licence comes from the metadata of the model's card (`README.md`), or else from the preset. It
is a column of every record and export, and part of C2PA manifests. `framefleet plan` and
`framefleet model info` print it, with its unusual terms (territory, commercial use, training on outputs,
attribution) and where they are written. An unknown licence is shown as unknown. These are facts, not
advice. For some models you must first accept the terms on the hub; then set `HF_TOKEN`. *Download GB* is
empty if it could not be checked; `framefleet model info MODEL` reads the exact sizes without fetching the
weights.

{licences}

## Remarks

A row uses the model's own scheduler, unless its `scheduler` cell names another one. Pipelines without a
scheduler (Echo, the latent upsamplers of LTX) do not accept such a cell; their records say `none`.

{remarks}

## What was measured

Rows that differ in prompt, seed, steps, guidance and size were rendered by two workers, or in one process
(*workers* 0), with tiny models of random weights in the dtype above and diffusers {diffusers}
(`python -m tools.conformance`). *Exact in a batch*: all rows have the same bits as plain calls of
diffusers. *Shares forwards*: the mean number of rows in a [forward](glossary.md) (a call of the denoiser).
The first forwards of each size run row by row, so the mean of a few short rows is far below that of many
long ones. This does not affect exactness: rows that cannot share a forward run alone.

{measured}

These were tried, and cannot be rendered:

{not_rendered}

A class that is in neither table works with the defaults of its call, if it takes only text, numbers, images
and videos. `framefleet model list --classes` prints a line for each class. These classes of the installed
diffusers were not tried:

{not_tried}

Models that start from an image or a video need a column `image` or `video` with its path or URL. Some text
models can start from one too, with a [recipe](recipes.md).
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
                (f"`{model}`", p.license, f"{p.download_gb:g}" if p.download_gb else "")
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
