"""What was measured of pipeline classes, as the table of docs/models.md and as a line of `model info`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from framefleet.pipeline.model.families.measurements import Finding, Measurements
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

# What classes make, as people read it.
KINDS = {
    "video": "videos",
    "image": "images",
    "sound": "sound alone",
    "other": "text, embeddings, maps, or what its code does not say",
    "deprecated": "deprecated by diffusers",
}


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


def class_states(measured: Measurements) -> Iterator[tuple[str, str, str]]:
    """Yield every class of diffusers, what it makes, and whether it was measured, refused or not tried."""
    for kind, names in measured.classes.items():
        for name in names:
            findings, why = measured.of_class(name), measured.not_rendered.get(name)
            state = in_company(findings) if findings else f"refused: {why}" if why else "not tried"
            yield name, KINDS[kind], state


def in_company(findings: Sequence[Finding]) -> str:
    """Return whether rows of a class keep their bits in a batch, and how many share a forward."""
    rows, equal = sum(finding.rows for finding in findings), sum(finding.equal for finding in findings)
    exact = "exact in a batch" if equal == rows else f"{equal} of {rows} rows exact in a batch"
    return f"{exact}; {_shared(findings)} rows to a forward in the mean"


def _row(name: str, findings: Sequence[Finding]) -> tuple[str, ...]:
    rows, equal = sum(finding.rows for finding in findings), sum(finding.equal for finding in findings)
    presets = (preset.name for preset in PRESETS if name in preset.pipelines)
    return (
        f"`{name}`",
        _joined(finding.makes for finding in findings),
        "yes" if equal == rows else f"{equal} of {rows} rows",
        _shared(findings),
        _joined(str(finding.workers) for finding in findings),
        _joined(finding.sound for finding in findings).replace("none", ""),
        ", ".join(presets),
        _joined(finding.why for finding in findings if finding.why),
    )


def _shared(findings: Sequence[Finding]) -> str:
    batches = [finding.mean_batch for finding in findings]
    least, most = f"{min(batches):.1f}", f"{max(batches):.1f}"
    return least if least == most else f"{least} to {most}"


def _joined(texts: Iterator[str]) -> str:
    return "; ".join(dict.fromkeys(texts))
