"""In: whatever a recipe returned. Out: all that is in it: frames, sound and the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.outputs.frames.audio import Audio, sample_rate_of, to_audio
from framefleet.pipeline.outputs.frames.extras import Extras, to_extras
from framefleet.pipeline.outputs.frames.fields import IMAGES, PICTURES, SOUND
from framefleet.pipeline.outputs.frames.frames import Pictures
from framefleet.pipeline.outputs.frames.pixels import Pixels, to_pixels

RATE = "sample_rate"  # a recipe may return it beside sound


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What one row rendered. pixels, audio: None where there are none."""

    pixels: Pixels | None = None
    audio: Audio | None = None
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
    given = {name: value for name, value in _fields(output).items() if value is not None}
    pictures, sound = _one_of(PICTURES, given), _one_of(SOUND, given)
    if pictures is None and sound is None:
        raise RenderError(
            f"the recipe returned {', '.join(given) or 'nothing'}: neither frames nor sound",
            f"return frames as one of {', '.join(PICTURES)}, or sound as one of {', '.join(SOUND)}",
        )
    rate = given.pop(RATE, None) if sound else None
    own = {pictures, sound}
    return Rendered(
        pixels=to_pixels(given[pictures], are_images=pictures in IMAGES) if pictures else None,
        audio=to_audio(given[sound], rate or sample_rate_of(pipe.components)) if sound else None,
        extras=to_extras({name: value for name, value in given.items() if name not in own}),
    )


def has_sound(output: Any) -> bool:
    """Tell whether `output` holds sound."""
    given = _fields(output)
    return any(given.get(name) is not None for name in SOUND)


def _fields(output: Any) -> dict[str, Any]:
    if isinstance(output, Mapping):  # as diffusers' outputs are
        return dict(output)
    if any(hasattr(output, name) for name in (*PICTURES, *SOUND)):
        return dict(vars(output))
    return {"frames": output}


def _one_of(names: tuple[str, ...], given: Mapping[str, Any]) -> str | None:
    return next((name for name in names if name in given), None)
