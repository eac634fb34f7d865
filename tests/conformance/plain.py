"""What a script without framefleet makes of a tiny pipeline's rows: each by a call on a fresh pipeline."""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import diffusers
import numpy as np
import torch
from PIL import Image

from framefleet.pipeline.model.options.offload import modules_of
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.model_index import read_index
from framefleet.pipeline.outputs.frames import frames_sha256
from tests.mixed import OWN, SCHEDULERS, Cells
from tests.tiny import INPUTS, OPTIONS, tiny


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a row. sound: of its samples; None without. rows: of its forwards, in the mean."""

    frames: str
    sound: str | None
    rows: float = 1.0


def plain_calls(name: str, dtype: torch.dtype, rows: Sequence[Cells], folder: Path) -> Iterator[Made]:
    """Yield what each row makes. folder: of the files that rows start from."""
    loaded = class_named(read_index(tiny(name)).class_name).from_pretrained(tiny(name), dtype=dtype)
    loaded.set_progress_bar_config(disable=True)
    if OPTIONS.get(name, {}).get("vae_tiling"):
        loaded.vae.enable_tiling()
    # Not of weights: where in memory they begin decides which kernels take them, and so bits.
    weights = {
        id(weight): weight for network in modules_of(loaded).values() for weight in network.parameters()
    }
    for row in rows:
        pipe = copy.deepcopy(loaded, dict(weights))
        choice = SCHEDULERS.get(name, OWN)[row["scheduler"]]
        if choice is not None:
            scheduler_class, changes = getattr(diffusers, choice[0]), choice[1]
            pipe.scheduler = scheduler_class.from_config(pipe.scheduler.config, **changes)
        yield _called(pipe, row["seed"], _opened(name, row, folder))


def sound_sha256(samples: Any) -> str:
    """Return the digest of what a pipeline or a clip holds as sound, of any leading dimensions of one."""
    array = samples.float().cpu().numpy() if isinstance(samples, torch.Tensor) else np.asarray(samples)
    return hashlib.sha256(np.ascontiguousarray(array, dtype=np.float32).tobytes()).hexdigest()


def _opened(name: str, row: Cells, folder: Path) -> dict[str, Any]:
    given = {key: cell for key, cell in row.items() if cell is not None and key not in ("seed", "scheduler")}
    files = {*INPUTS.get(name, {}), "image", "last_image"} & given.keys()
    return given | {key: _read(folder / given[key]) for key in files}


def _read(path: Path) -> Image.Image | list[Image.Image]:
    if path.suffix == ".png":
        return Image.open(path).convert("RGB")
    with av.open(str(path)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


def _called(pipe: Any, seed: int, given: Mapping[str, Any]) -> Made:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    output = pipe(**given, generator=torch.Generator("cpu").manual_seed(seed), output_type="np")
    sound = getattr(output, "audio", None)
    return Made(frames_sha256(_frames(output)), None if sound is None else sound_sha256(sound))


def _frames(output: Any) -> np.ndarray[Any, Any]:
    """Return uint8 frames (T, H, W, 3) of an output's first clip, or of its one image."""
    frames = output.frames[0] if hasattr(output, "frames") else output.images
    return (np.asarray(frames) * 255).round().astype(np.uint8)
