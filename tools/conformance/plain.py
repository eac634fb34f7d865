"""What a script without framefleet makes of a tiny pipeline's rows: each by a call on a fresh pipeline."""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import diffusers
import numpy as np
import torch
from PIL import Image

from framefleet.pipeline.model.options.offload import modules_of
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.model_index import is_modular, read_index
from framefleet.pipeline.outputs.frames.frames import frames_sha256
from framefleet.pipeline.request import Request
from tests import modular
from tests.mixed import OWN, SCHEDULERS, Cells
from tests.tiny import OPTIONS, tiny

SOUNDS = ("audio", "audios", "sound")  # what outputs of diffusers call it
PICTURES = ("images", "image", "video", "rgb", "prediction")  # and one image, or one clip alone


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a row: digests of frames and sound, if any. rows: of a forward, in the mean."""

    frames: str | None
    sound: str | None
    rows: float = 1.0


def plain_calls(
    name: str, dtype: torch.dtype | dict[str, torch.dtype], rows: Sequence[Cells], folder: Path
) -> Iterator[Made]:
    """Yield what each row makes. folder: of the files that rows start from."""
    class_name = read_index(tiny(name)).class_name
    if is_modular(class_name):
        pipe = modular.plain(tiny(name), dtype=dtype)
        for row in rows:
            asked = Request(arguments=_opened(row, folder, class_name), seed=row["seed"])
            output = modular.plain_output(pipe, asked)
            sound = SimpleNamespace(audio=output.get("audio"))
            yield Made(frames_sha256(modular.frames_of(output)), _sound_sha256(sound, pipe))
        return
    loaded = class_named(class_name).from_pretrained(tiny(name), dtype=dtype)
    loaded.set_progress_bar_config(disable=True)
    if OPTIONS.get(name, {}).get("vae_tiling"):
        loaded.vae.enable_tiling()
    # Not of weights: where in memory they begin decides which kernels take them, and so bits.
    weights = {id(weight): weight for network in modules_of(loaded).values() for weight in _tensors(network)}
    for row in rows:
        pipe = copy.deepcopy(loaded, dict(weights))
        choice = SCHEDULERS.get(name, OWN)[row["scheduler"]]
        if choice is not None:
            scheduler_class, changes = getattr(diffusers, choice[0]), choice[1]
            pipe.scheduler = scheduler_class.from_config(pipe.scheduler.config, **changes)
        yield _called(pipe, row["seed"], _opened(row, folder, class_name))


def _tensors(network: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Yield its parameters, and what weight norm made of some of them, which cannot be copied."""
    yield from network.parameters()
    for module in network.modules():
        yield from (value for value in vars(module).values() if isinstance(value, torch.Tensor))


def _opened(row: Cells, folder: Path, class_name: str) -> dict[str, Any]:
    mode = "RGBA" if "Layered" in class_name else "RGB"  # as its documentation opens pictures
    return {key: _with_files(cell, folder, mode) for key, cell in _given(row).items()}


def _with_files(cell: Any, folder: Path, mode: str) -> Any:
    """Return a cell with the pictures and clips that it names, as `write_starts` calls them."""
    if isinstance(cell, list):
        return [_with_files(part, folder, mode) for part in cell]
    return _read(folder / cell, mode) if isinstance(cell, str) and cell.endswith((".png", ".mkv")) else cell


def _given(row: Cells) -> dict[str, Any]:
    return {key: cell for key, cell in row.items() if cell is not None and key not in ("seed", "scheduler")}


def _read(path: Path, mode: str) -> Image.Image | list[Image.Image]:
    if path.suffix == ".png":
        return Image.open(path).convert(mode)
    with av.open(str(path)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


def _called(pipe: Any, seed: int, given: Mapping[str, Any]) -> Made:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    output = pipe(**given, generator=torch.Generator("cpu").manual_seed(seed), output_type="np")
    return Made(_frames_sha256(output), _sound_sha256(output, pipe))


def _frames_sha256(output: Any) -> str | None:
    """Return the digest of an output's first clip, or of its one image, as uint8 (T, H, W, 3)."""
    if hasattr(output, "frames"):
        frames = output.frames[0] if np.ndim(output.frames) != 4 else output.frames  # SANA-WM has no batch
    else:
        frames = next((getattr(output, name) for name in PICTURES if hasattr(output, name)), None)
        if hasattr(output, "prediction"):  # maps of one picture, of which the first is shown
            frames = (frames[:1] + 1) / 2 if "Normals" in type(output).__name__ else frames[:1]
            frames = np.broadcast_to(frames, (*frames.shape[:3], 3))
    if frames is None:
        return None
    array = np.asarray(frames)
    while array.ndim > 4:  # frames and layers that are called images
        array = array[0]
    scaled = (array * 255).round()
    is_beyond = scaled.min() < 0 or scaled.max() > 255  # light, which no PIL image holds
    return frames_sha256(array.astype(np.float32) if is_beyond else scaled.astype(np.uint8))


def _sound_sha256(output: Any, pipe: Any) -> str | None:
    """Return the digest of an output's sound as 16-bit samples, channels side by side."""
    sound = next((getattr(output, name) for name in SOUNDS if getattr(output, name, None) is not None), None)
    if sound is None:
        return None
    samples = torch.as_tensor(sound).float().cpu().numpy()
    samples = samples.reshape(-1, samples.shape[-1])
    digest = hashlib.sha256(f"int16 {samples.shape[1]}x{samples.shape[0]} {_rate(pipe)}\n".encode("ascii"))
    digest.update((samples.T.clip(-1, 1) * np.float32(32767)).round().astype("<i2").tobytes())
    return digest.hexdigest()


def _rate(pipe: Any) -> int:
    """Return the samples in a second, as the examples of diffusers find them."""
    if isinstance(pipe, diffusers.MiniMaxH3ModularPipeline):
        return int(pipe.audio_sampling_rate)
    if hasattr(pipe, "audio_sample_rate"):  # Kandinsky 6
        return int(pipe.audio_sample_rate)
    if hasattr(pipe, "vocoder"):
        config = pipe.vocoder.config
        return int(getattr(config, "output_sampling_rate", None) or config.sampling_rate)
    parts = [pipe.components.get(name) for name in ("sound_tokenizer", "vae", "unet")]
    config = next(part for part in parts if part is not None).config
    return int(config.get("sampling_rate") or config.sample_rate)
