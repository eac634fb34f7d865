"""What becomes of a request: a clip, or why there is none."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from framefleet.pipeline.outputs.frames.audio import Audio
from framefleet.pipeline.outputs.frames.extras import Extras
from framefleet.pipeline.outputs.frames.frames import Pictures
from framefleet.pipeline.outputs.frames.pixels import Pixels
from framefleet.pipeline.outputs.media.media_settings import Media, format_of
from framefleet.pipeline.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One rendered row, and all that its record says about how it came to be.

    pixels: its frames, perhaps still being made; None of pipelines that make sound alone. audio: its sound,
    if any. extras: what else the pipeline returned. native_fps: the rate it is rendered for; None where the
    model does not say. seconds: encode_s (text), denoise_s (from the first forward to the last, shared
    with other rows), decode_s, compute_s (its share of all that the model was busy). idle: seconds in which
    the model had nothing to do since the last clip, by what it waited for. batch_size: mean rows over its
    forwards. started_at: when the renderer took the row. numerics: as the row_id has them. environment: where
    it was rendered. was_batched: not by a plain call, and so audits speak for it.
    num_prompt_tokens, is_prompt_cut: what its prompt has, and whether its end was read; None: unknown.
    license: of the model's weights.
    """

    row_id: str
    request: Request
    pixels: Pixels | None
    native_fps: float | None
    model: str
    model_digest: str
    numerics: Mapping[str, Any]
    seconds: Mapping[str, float]
    batch_size: float
    peak_memory_bytes: int
    environment: Mapping[str, Any]
    started_at: datetime
    was_batched: bool = False
    idle: Mapping[str, float] = field(default_factory=dict)
    audio: Audio | None = None
    audio_sha256: str | None = None
    extras: Extras = field(default_factory=Extras)
    num_prompt_tokens: int | None = None
    is_prompt_cut: bool | None = None
    license: str | None = None

    def __repr__(self) -> str:
        prompt = self.request.arguments.get("prompt", "")
        return f"Clip({reprlib.repr(prompt)}, seed={self.request.seed}, row_id={self.row_id[:8]!r})"

    @property
    def frames(self) -> Pictures | None:
        """uint8 RGB (T, H, W, 3); T is 1 for images. With alpha (T, H, W, 4), T layers where there are.

        float32 where values lie outside [0, 1]. Waits for them; raises RenderError if they cannot be kept.
        """
        return self.pixels.frames if self.pixels else None

    @property
    def frames_sha256(self) -> str | None:
        return self.pixels.sha256 if self.pixels else None

    def save(self, path: str | Path, *, fps: float | None = None, crf: int | None = None) -> Path:
        """Write the clip to a file, as a job would; return its path. Replaces what is there.

        path: its ending is the format, as .mp4 or .png. fps, crf: as below `media:` in a job. Raises JobError
        for an ending that is no format, RenderError for what the format cannot hold.
        """
        from framefleet.pipeline.outputs.encode_clip import encode_clip  # knows clips

        path = Path(path)
        media = Media(format=format_of(path.name), fps=fps, crf=crf)
        path.write_bytes(encode_clip(self, media).content)
        return path

    def _repr_html_(self) -> str:
        """Return what notebooks show: the clip, playing."""
        from framefleet.pipeline.outputs.encode_clip import player  # knows clips

        return player(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One row that could not be rendered. The others went on.

    error: without its frames, which would keep the row's tensors; they are written out in traceback.
    half_done: from which it may go on where there is more memory.
    """

    row_id: str
    request: Request
    error: Exception
    traceback: str
    half_done: Any = None  # a HalfDone


Outcome = Clip | Failure
