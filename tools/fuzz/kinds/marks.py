"""Weights of watermarks that are damaged, hostile, or something else, and what opens them."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import torch

from framefleet.plugins.marks.settings import Watermark
from framefleet.plugins.marks.weights import read_weights
from tools.fuzz import hostile
from tools.fuzz.case import Case, command, reported
from tools.fuzz.child import MARK
from tools.fuzz.material import Material

FILES = {
    "trustmark": ("encoder_Q.ckpt", "decoder_Q.ckpt"),
    "audioseal": ("generator_base.pth", "detector_base.pth"),
    "videoseal": ("",),
}
# Of TrustMark's configs, which name what is imported and called. Nobody reads them.
CONFIGS = (
    "model: {target: os.system, params: {command: 'touch was-run'}}",
    "model: '${oc.create:{target: os.system, params: {command: touch was-run}}}'",
    "model: !!python/object/apply:os.system [touch was-run]",
    "model: {params: ${oc.env:HOME}}",
)


class _Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {MARK}",)


def marks(rng: Random, folder: Path, material: Material) -> Case:
    """A file or folder of weights, opened as a worker does, or named to `trace`."""
    name = rng.choice(list(FILES))
    place = folder / "weights"
    if FILES[name] != ("",):
        place.mkdir()
        (place / "trustmark_Q.yaml").write_text(rng.choice(CONFIGS))
    for file in FILES[name]:
        _write(rng, place / file if file else place)
    if rng.random() < 0.3:
        (folder / "a.png").write_bytes(material.images["png"])
        run = command("trace", "a.png", "--watermark", f"{name}=weights")
        return Case(told=f"trace by {name}", run=run, codes=(0, 1, 2))
    watermark = Watermark(name=name, weights=str(place))  # type: ignore[arg-type]  # one of three texts
    return Case(told=f"weights of {name}", run=reported(lambda: read_weights(watermark, FILES[name])))


def _write(rng: Random, path: Path) -> None:
    tensors = {"encoder.pre.conv.weight": torch.zeros(2, 3), "decoder.fc.bias": torch.ones(4)}
    checkpoint: Any = rng.choice(
        (
            *({"state_dict": tensors, "epoch": 3}, {"model": tensors}, tensors),
            *({"model": _Harmful()}, _Harmful(), [tensors], {"model": {"__class__.x": torch.ones(1)}}),
            {"x": torch.zeros(1).expand(1 << 40)},
            hostile.value(rng),
        )
    )
    buffer = io.BytesIO()
    with suppress(OverflowError, RecursionError, RuntimeError, UnicodeError):  # what no pickle can hold
        torch.save(checkpoint, buffer, _use_new_zipfile_serialization=rng.random() < 0.8)
    content = buffer.getvalue()
    draw = rng.random()
    if draw < 0.5:
        path.write_bytes(content)
    elif draw < 0.85:
        path.write_bytes(hostile.mutated_bytes(rng, content))
    elif draw < 0.9:
        os.mkfifo(path)
    elif draw < 0.95:
        path.symlink_to(rng.choice(("/dev/zero", "nowhere", "/etc/passwd")))
    else:
        with open(path, "wb") as file:
            file.truncate(40 << 30)
