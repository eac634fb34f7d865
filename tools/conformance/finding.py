"""In: what plain calls and a company made of a tiny pipeline's rows. Out: what was found of its class."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean

from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.plugins.models.descriptions import Finding, Sound
from tests.tiny import INPUTS, tiny
from tools.conformance.batches import Rendered
from tools.conformance.plain import Made
from tools.conformance.reasons import REASONS


def compare(name: str, plain: Mapping[int, Made], found: Rendered, *, workers: int = 0) -> Finding:
    """Return what rows of the tiny pipeline `name` came to. plain, found: by their seeds.

    workers: of the fleet that rendered them; 0 for this process.
    """
    spec = inspect_model(tiny(name))
    made = {seed: row for seed, row in found.items() if isinstance(row, Made)}
    failed = [row for row in found.values() if isinstance(row, str)]
    sound = _sound(plain, made)
    reasons = [*failed[:1], *(["its sound is dropped"] if sound == "dropped" else [])]
    reasons += [REASONS[spec.class_name]] if spec.class_name in REASONS else []
    words = {"prompt": "text", "class_labels": "class"}
    starts = [word for given, word in words.items() if given in spec.parameters] + [*INPUTS.get(name, {})]
    return Finding(
        class_name=spec.class_name,
        makes=f"{', '.join(starts) or 'noise'} to {spec.kind}",
        rows=len(plain),
        equal=sum(_are_equal(plain[seed], row) for seed, row in made.items()),
        mean_batch=round(mean(row.rows for row in made.values()), 1) if made else 0.0,
        sound=sound,
        workers=workers,
        why="; ".join(reasons),
    )


def _are_equal(plain: Made, found: Made) -> bool:
    """Sound that was dropped is reported by itself."""
    return plain.frames == found.frames and found.sound in (None, plain.sound)


def _sound(plain: Mapping[int, Made], found: Mapping[int, Made]) -> Sound:
    if all(row.sound is None for row in plain.values()):
        return "none"
    return "kept" if found and all(row.sound for row in found.values()) else "dropped"
