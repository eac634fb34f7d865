"""In: whatever a recipe returned. Out: all that is in it: frames, sound and the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.outputs.frames.audio import Audio, sample_rate_of, to_audio
from framefleet.pipeline.outputs.frames.extras import Extras, to_extras
from framefleet.pipeline.outputs.frames.fields import IMAGES, MAPS, PICTURES, SOUND
from framefleet.pipeline.outputs.frames.frames import Pictures
from framefleet.pipeline.outputs.frames.pixels import Pixels, to_pixels

RATES = ("sample_rate", "sampling_rate")  # a recipe, or a pipeline, may return one with sound


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What one row rendered."""

    pixels: Pixels | None = None  # None: sound alone
    audio: Audio | None = None  # None: there is none
    extras: Extras = field(default_factory=Extras)

    @property
    def frames(self) -> Pictures | None:
        """Wait for the frames. Raises RenderError for those that cannot be kept."""
        return self.pixels.frames if self.pixels else None


def to_rendered(output: Any, pipe: Any) -> Rendered:
    """Return all that `output` holds: nothing of it is dropped.

    output: an output of diffusers, or a mapping with fields of the same names; else it is the frames
    themselves. pipe: made it, so its components say the rate of its sound. Raises RenderError for what
    cannot be kept.
    """
    if isinstance(output, Rendered):
        return output
    fields = {name: value for name, value in _fields(output).items() if value is not None}
    pictures, sound, map_name = _one_of(PICTURES, fields), _one_of(SOUND, fields), _one_of(MAPS, fields)
    pixels = None
    if pictures is not None:
        pixels = to_pixels(fields[pictures], are_images=pictures in IMAGES)
    elif map_name is not None:
        pixels = map_pixels(map_name, fields[map_name], output)
    elif sound is None:
        raise RenderError(
            f"the recipe returned {', '.join(fields) or 'nothing'}: neither frames nor sound",
            f"return frames as one of {', '.join(PICTURES)}, or sound as one of {', '.join(SOUND)}",
        )
    audio = None
    if sound is not None:
        rates = [fields.pop(name, None) for name in RATES]
        rate = next(filter(None, rates), None) or sample_rate_of(pipe.components)
        audio = to_audio(fields[sound], rate)
    others = {name: value for name, value in fields.items() if name not in (pictures, sound)}
    return Rendered(pixels=pixels, audio=audio, extras=to_extras(others))


def has_sound(output: Any) -> bool:
    """Tell whether `output` holds sound."""
    fields = _fields(output)
    return any(fields.get(name) is not None for name in SOUND)


def _fields(output: Any) -> dict[str, Any]:
    if isinstance(output, Mapping):  # as diffusers' outputs are
        return dict(output)
    if any(hasattr(output, name) for name in (*PICTURES, *SOUND, *MAPS)):
        return dict(vars(output))
    return {"frames": output}


def _one_of(names: tuple[str, ...], fields: Mapping[str, Any]) -> str | None:
    return next((name for name in names if name in fields), None)


def map_pixels(name: str, value: Any, output: object) -> Pixels:
    """Return the picture of the first map in `value`: one channel is grey, normals are (x + 1) / 2.

    name: of the field that holds it. output: whose class says what a `prediction` is. Values outside [0, 1]
    stay as they are, as those of frames do. The map itself is kept next to the clip (`extras.py`). Raises
    RenderError for what has no picture.
    """
    array = _first(value)
    if np.issubdtype(array.dtype, np.integer):
        array = array / np.float32(np.iinfo(array.dtype).max)
    if "normals" in f"{name} {type(output).__name__}".lower():
        array = (array + 1) / 2  # vectors of length one, as diffusers' visualize_normals shows them
    return to_pixels(array)


def _first(value: Any) -> npt.NDArray[Any]:
    """Return one map of any nesting as (H, W, 3)."""
    if isinstance(value, list | tuple) and value:
        return _first(value[0])
    if hasattr(value, "detach"):  # a torch tensor, channels first
        value = np.moveaxis(value.detach().float().cpu().numpy(), -3, -1)
    array = np.asarray(value)
    while array.ndim > 3:
        array = array[0]
    if array.ndim == 3 and array.shape[0] == 1 and array.shape[-1] not in (1, 3):
        array = array[0]  # (1, H, W), a batch of one without channels
    array = array[..., None] if array.ndim == 2 else array
    return np.repeat(array, 3, axis=-1) if array.shape[-1:] == (1,) else array
