"""Read a clip that a server sent; RenderError if it is not complete, or not what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import av
import numpy as np

from framefleet.api.clips import Audio, MediaFormat, decode_audio
from framefleet.api.engines import EngineClip, SentFile, declared_frames, file_kind, frames_of, open_image
from framefleet.api.errors import InputError, RenderError, StoreError, count_text
from framefleet.plugins.engines.words import frames_asked, is_about, length_asked, size_asked

_FORMATS: Mapping[str, MediaFormat] = {"mp4": "mp4", "png": "png"}
_FIX = "check the server; `framefleet retry` creates the clip again"


def clip_received(content: bytes, arguments: Mapping[str, Any], kind: str) -> EngineClip:
    """Return a file as a clip. kind: videos or images. Raises RenderError."""
    found = file_kind(content)
    wanted = "video" if kind == "videos" else "image"
    if found is None or found.kind != wanted:
        what = "nothing" if not content else str(found) if found else "a file of unknown type"
        raise RenderError(f"the server sent {what} instead of {wanted}", _FIX)
    try:
        clip = _video(content) if kind == "videos" else _image(content)
    except (InputError, StoreError, av.FFmpegError, ValueError) as error:
        raise RenderError(f"the server sent a {wanted} that cannot be decoded: {error}", _FIX) from error
    _check(clip, arguments, kind)
    return replace(clip, sent=SentFile(content, _format(content, found.name)))


def _image(content: bytes) -> EngineClip:
    return EngineClip(frames=np.asarray(open_image(content))[None])


def _video(content: bytes) -> EngineClip:
    frames = np.stack([np.asarray(frame) for frame in frames_of(content)])
    declared, fps = declared_frames(content)
    if declared and declared != len(frames):
        raise ValueError(f"it has {len(frames)} of {count_text(declared, 'frame')}")
    sound = decode_audio(content)
    audio = sound and Audio(samples=(sound[0].T / np.float32(32767)).clip(-1, 1), sample_rate=sound[1])
    return EngineClip(frames=frames, fps=fps, audio=audio)


def _format(content: bytes, name: str) -> MediaFormat | None:
    if name == "mkv or webm":  # the first bytes say which
        return "webm" if b"webm" in content[:64] else "mkv"
    return _FORMATS.get(name)


def _check(clip: EngineClip, arguments: Mapping[str, Any], kind: str) -> None:
    """Raise RenderError if a clip is not what was asked for."""
    num_frames, height, width, _ = clip.frames.shape
    differs = []
    if (size := size_asked(arguments)) not in (None, (height, width)):
        differs.append(f"{width}x{height} instead of {size[1]}x{size[0]}" if size else "")
    if kind == "videos":
        asked, fps, seconds = frames_asked(arguments), arguments.get("fps"), length_asked(arguments)
        if arguments.get("num_frames") is not None and num_frames != arguments["num_frames"]:
            differs.append(f"{num_frames} frames instead of {arguments['num_frames']}")
        elif asked is not None and not is_about(num_frames, asked):
            differs.append(f"{num_frames} frames instead of about {asked:g}")
        if fps and (clip.fps is None or abs(clip.fps - fps) > fps / 1000):
            differs.append(f"{clip.fps or 0:g} fps instead of {fps:g} fps")
        length = num_frames / clip.fps if clip.fps else 0.0
        if seconds is not None and not differs and abs(length - seconds) > 1 / 4 + seconds / 20:
            differs.append(f"{length:.2f} s instead of {seconds:g} s")
    if differs:
        raise RenderError(f"the server sent a clip with {', '.join(differs)}", _FIX)
