"""What becomes of a request: a clip, or why there is none."""

from __future__ import annotations

import reprlib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from framefleet.pipeline.outputs.frames.frames import Pictures, Pixels, eight_bits
from framefleet.pipeline.outputs.frames.result import Audio, Extras
from framefleet.pipeline.outputs.media.media_settings import Media, MediaFormat, format_of
from framefleet.pipeline.request import Request

_SIDE = 512  # pixels, the least width at which notebooks show a clip: one of 64 would be a stamp


@dataclass(frozen=True, slots=True)
class SentFile:
    """The file that an engine has sent."""

    content: bytes = field(repr=False)
    format: MediaFormat | None  # None: another one


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One rendered row, and all that its record says about how it came to be."""

    row_id: str
    request: Request
    pixels: Pixels | None  # its frames, perhaps still being made; None if a pipeline makes only sound
    native_fps: float | None  # the rate it is rendered for; None if the model does not say
    model: str
    model_digest: str
    numerics: Mapping[str, Any]  # as the row_id has them
    # encode_s (text), denoise_s (from the first forward to the last, shared with other rows), decode_s,
    # compute_s (its share of all the time that the model was busy).
    seconds: Mapping[str, float]
    batch_size: float  # mean number of rows in its forwards
    peak_memory_bytes: int
    environment: Mapping[str, Any]  # where it was rendered
    started_at: datetime  # when the renderer took the row
    was_batched: bool = False  # not rendered by a plain call, so audits vouch for it
    # Seconds in which the model had nothing to do since the last clip, by what it waited for.
    idle: Mapping[str, float] = field(default_factory=dict)
    audio: Audio | None = None  # its sound, if any
    audio_sha256: str | None = None
    extras: Extras = field(default_factory=Extras)  # what else the pipeline returned
    num_prompt_tokens: int | None = None  # None: unknown
    is_prompt_cut: bool | None = None  # the end of its prompt was not read; None: unknown
    license: str | None = None  # of the model's weights
    sent: SentFile | None = None  # in which its frames and its sound came

    def __repr__(self) -> str:
        prompt = self.request.arguments.get("prompt", "")
        return f"Clip({reprlib.repr(prompt)}, seed={self.request.seed}, row_id={self.row_id[:8]!r})"

    @property
    def frames(self) -> Pictures | None:
        """uint8 RGB (T, H, W, 3); T is 1 for images. With alpha (T, H, W, 4); T may count layers.

        float32 if values are outside [0, 1]. Waits for them; raises RenderError if they cannot be stored.
        """
        return self.pixels.frames if self.pixels else None

    @property
    def frames_sha256(self) -> str | None:
        """The digest of its frames; None for sound alone."""
        return self.pixels.sha256 if self.pixels else None

    def save(self, path: str | Path, *, fps: float | None = None, crf: int | None = None) -> Path:
        """Write the clip to a file, as a job would; return its path. Replaces what is there.

        path: its ending is the format, e.g. .mp4 or .png. fps, crf: as below `media:` in a job. Raises
        JobError for an unknown ending, RenderError for what the format cannot hold.
        """
        from framefleet.pipeline.outputs.encode_clip import encode_clip  # knows clips

        path = Path(path)
        media = Media(format=format_of(path.name), fps=fps, crf=crf)
        path.write_bytes(encode_clip(self, media).content)
        return path

    def _repr_html_(self) -> str:
        """Return what notebooks show: the clip, playing, and its prompt; for alpha and HDR, one frame."""
        from framefleet.pipeline.outputs.encode_clip import encode_clip  # knows clips
        from framefleet.pipeline.outputs.media.media import encode

        frames = self.frames
        style = "" if frames is None else f'style="width:{max(_SIDE, frames.shape[2])}px;max-width:100%"'
        if frames is None:
            tag, kind, end = "audio controls", "audio/wav", "</audio>"
            content = encode_clip(self, Media(format="wav")).content
        elif len(frames) > 1 and frames.dtype == np.uint8 and frames.shape[-1] == 3:
            tag, kind, end = "video controls autoplay loop muted playsinline", "video/mp4", "</video>"
            content = encode_clip(self, Media()).content
        else:
            tag, kind, end = "img", "image/png", ""
            content = encode(eight_bits(frames[:1]), media=Media(format="png"), fps=1, metadata={})
        shown = f'<{tag} {style} src="data:{kind};base64,{b64encode(content).decode()}">{end}'
        prompt = escape(str(self.request.arguments.get("prompt", "")))
        caption = f"<figcaption>{prompt} <small>seed {self.request.seed}</small></figcaption>"
        return f'<figure style="margin:0">{shown}{caption}</figure>'


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One row that could not be rendered; the others continued."""

    row_id: str
    request: Request
    error: Exception  # without stack frames, which would keep the row's tensors alive
    traceback: str  # the stack frames as text
    half_done: Any = None  # a HalfDone, from which it may continue where there is more memory


Outcome = Clip | Failure
