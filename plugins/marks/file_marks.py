"""Read the marks in any file, and describe its pictures.

Also reads the marks of a row's input files, while the row's clip is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from framefleet.api.clips import Audio, Frames, Request, decode, decode_audio, inputs_in
from framefleet.api.engines import open_image
from framefleet.api.texts import public_url
from framefleet.pipeline.outputs.frames.frames import frames_sha256
from framefleet.pipeline.outputs.media.picture_files import ZIP_SIGNATURE
from framefleet.pipeline.rows.inputs import video_frames
from framefleet.pipeline.rows.inputs.arguments import checked_content
from framefleet.plugins.marks.label import FoundLabel, label_in
from framefleet.plugins.marks.manifest import Ingredient
from framefleet.plugins.marks.manifest_reader import FoundManifest, read_manifest
from framefleet.plugins.marks.settings import Watermark
from framefleet.plugins.marks.watermark import FoundWatermark, watermarks_in

SPREAD = Watermark(name="spread")
_MOST_FRAMES = 32  # kept from a video; all frames have the same watermark


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    size: tuple[int, int] | None = None  # height and width
    num_frames: int = 0  # 0 for sound only
    fps: float | None = None
    has_sound: bool = False
    sha256: str | None = None  # of its frames, if they are few


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMarks:
    """The marks of a file. format: its usual name. contents: None if it could not be decoded."""

    format: str | None
    manifest: FoundManifest | None
    label: FoundLabel | None
    watermarks: tuple[FoundWatermark, ...]
    contents: Contents | None

    def description(self) -> dict[str, Any]:
        """Return the marks as JSON values, for records and manifests; {} without marks."""
        description: dict[str, Any] = {}
        if self.manifest:
            description["c2pa"] = {"state": self.manifest.state, "signer": self.manifest.signer}
            if self.manifest.source_type:
                description["c2pa"]["source_type"] = self.manifest.source_type
        if self.label:
            description["label"] = {"source_type": self.label.source_type, "aigc": dict(self.label.aigc)}
        if self.watermarks:
            description["watermarks"] = [{"name": one.name, "row_id": one.prefix} for one in self.watermarks]
        return description


def ingredients_of(request: Request, read: Callable[[str], bytes]) -> tuple[Ingredient, ...]:
    """Return a row's input files with their marks. read: returns the bytes at a path or URL.

    Raises InputError if a file has changed since the row was rendered.
    """
    return tuple(
        Ingredient(
            argument=argument,
            name=public_url(reference["uri"]).rpartition("/")[2],
            sha256=reference["sha256"],
            content=(content := checked_content(reference, read)),
            found=marks_in(content, is_quick=True).description(),
        )
        for argument, value in request.arguments.items()
        for reference in inputs_in(value)
    )


def marks_in(
    content: bytes,
    watermarks: Sequence[Watermark] = (SPREAD,),
    *,
    is_quick: bool = False,
    anchors: str | None = None,
) -> FoundMarks:
    """Return the marks of any file.

    is_quick: look for watermarks only at the size in which they were made. anchors: as for `read_manifest`.
    Without c2pa-python, manifests are not seen.
    """
    manifest = read_manifest(content, anchors=anchors) if find_spec("c2pa") else None
    kind = video_frames.file_kind(content)
    frames, audio, contents = _decoded(content, kind)
    return FoundMarks(
        format=kind.name if kind else None,
        manifest=manifest,
        label=label_in(content),
        watermarks=tuple(watermarks_in(frames, audio, watermarks, is_quick=is_quick)),
        contents=contents,
    )


def _decoded(
    content: bytes, kind: video_frames.FileKind | None
) -> tuple[Sequence[Frames], Audio | None, Contents | None]:
    """Decode a file, within the limits for inputs of rows; None if it cannot be decoded.

    Returns frames (H, W, 3), evenly spaced if there are many.
    """
    frames: list[Frames] = []
    audio, fps, step, count = None, None, 1, 0
    try:
        if content.startswith(ZIP_SIGNATURE):  # maybe framefleet's own format
            every = decode(content)[..., :3]
            count, frames = len(every), list(every[:: -(-len(every) // _MOST_FRAMES)])
            if sound := decode_audio(content):
                audio = Audio(samples=(sound[0].T / 32767).astype(np.float32), sample_rate=sound[1])
        elif kind is None or kind.kind is None:
            return (), None, None
        elif kind.kind == "image" and kind.name != "gif":
            count, frames = 1, [np.asarray(open_image(content))]
        else:
            audio = None if kind.name == "gif" else video_frames.open_sound(content)
            for count, frame in enumerate(video_frames.frames_of(content) if kind.kind != "audio" else (), 1):
                if (count - 1) % step == 0:
                    frames.append(np.asarray(frame))
                if len(frames) > _MOST_FRAMES:
                    frames, step = frames[::2], 2 * step
            fps = video_frames.declared_frames(content)[1] if count else None
    except Exception:  # decoders raise almost any class for broken files, but no file may fail a row
        return (), None, None
    return (
        frames,
        audio,
        Contents(
            size=frames[0].shape[:2] if frames else None,
            num_frames=count,
            fps=fps,
            has_sound=audio is not None,
            sha256=frames_sha256(np.stack(frames)) if frames and len(frames) == count else None,
        ),
    )
