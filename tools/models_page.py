"""Tables of models, from presets and findings: `python -m tools.models_page > docs/reference/models.md`."""

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
# Tables of models

<!-- Made from pipeline/model/families: python -m tools.models_page > docs/reference/models.md -->

Facts about each model and pipeline class. [Models](../models.md) explains the tables; `framefleet model
list` and `framefleet model info MODEL` print the same.

## Presets

{models}

*Weights GB* is computed: the number of parameters, from the published configs, times the bytes of the
dtype. *Largest GB* is the weights of the largest component alone. Activations need more memory, which
grows with the size and the frames.

## Licenses and downloads

*Download GB* is empty if it could not be checked.

{licenses}

## Remarks

{remarks}

## What was measured

Rows that differ in prompt, seed, steps, guidance and size were rendered by two workers, or in one
process (*workers* 0), with tiny models of random weights in the dtype above and diffusers {diffusers}
(`python -m tools.conformance`). *Exact in a batch*: all rows have the same bits as plain calls of
diffusers. *Shares forwards*: the mean number of rows in a [forward](../glossary.md). The first forwards
of each size run row by row, so the mean of a few short rows is far below that of many long ones. Rows
that cannot share a forward run alone.

{measured}

These were tried, and cannot be rendered:

{not_rendered}

These classes of the installed diffusers were not tried:

{not_tried}
"""


def page() -> str:
    """Return the text of docs/reference/models.md."""
    known, measured = PRESETS, read_measured()
    return _PAGE.format(
        models=table(
            ("preset", "makes", "size", "frames", "steps", "guidance", "dtype", "weights GB", "largest GB"),
            ((p.name, makes(p), size_text(p), frames_text(p), *_numbers(p)) for p in known),
        ),
        licenses=table(
            ("model", "license", "download GB"),
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
