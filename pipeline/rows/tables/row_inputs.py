"""From a cell that names an image or a video by path or URL to the value that identifies its row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from framefleet.pipeline.model.specs.check import check_frames
from framefleet.pipeline.model.specs.geometry import FRAME_PARAMETERS
from framefleet.pipeline.model.specs.refused import Refused
from framefleet.pipeline.model.specs.signature import InputKind
from framefleet.pipeline.model.specs.spec import PipelineSpec


class Seen(Protocol):
    """What was found out about an image or a video. num_frames: 1 for images."""

    @property
    def sha256(self) -> str: ...
    @property
    def num_frames(self) -> int: ...


class Finder(Protocol):
    """Opens what rows name, each once, many at a time."""

    def prefetch(self, wanted: Iterable[tuple[str, InputKind]]) -> None:
        """Open all of these now, side by side."""
        ...

    def find(self, uri: str, kind: InputKind) -> Seen | Refused: ...

    def locate(self, uri: str) -> str:
        """Return what names the same file in any folder."""
        ...


class NoInputs:
    """For plans of rows that name no images, or whose job says nothing about where they may lie."""

    def prefetch(self, wanted: Iterable[tuple[str, InputKind]]) -> None:
        pass

    def find(self, uri: str, kind: InputKind) -> Seen | Refused:
        return Refused(reason="nothing says where images may lie", fix="set `inputs: {roots: [...]}`")

    def locate(self, uri: str) -> str:
        return uri


def check_input(cell: Any, kind: InputKind, finder: Finder) -> dict[str, Any] | Refused:
    """Return {"uri", "sha256"}, and "num_frames" of a video; or why it cannot be rendered from."""
    if not isinstance(cell, str) or not cell.strip():
        return Refused(reason=f"it must be the path or URL of {_A[kind]}", fix="write one, or leave it empty")
    seen = finder.find(cell.strip(), kind)
    if isinstance(seen, Refused):
        return seen
    frames = {"num_frames": seen.num_frames} if kind == "video" else {}
    return {"uri": finder.locate(cell.strip()), "sha256": seen.sha256, **frames}


def check_video_length(video: Any, asked: int | None, spec: PipelineSpec) -> Refused | None:
    """Return why a row's video is too short, or does not fit the model's frame rule.

    asked: the row's own num_frames, the first of which are taken; None where all are. Not where the pipeline
    itself takes a number of frames: there the video is a part of the clip.
    """
    if any(name in spec.parameters for name in FRAME_PARAMETERS):
        return None
    found = video["num_frames"]
    if asked is not None and found < asked:
        return Refused(reason=f"it has {found} frames, and num_frames is {asked}", fix=f"use {found} or less")
    checked = check_frames(found if asked is None else asked, spec)
    if not isinstance(checked, Refused) or asked is not None:  # num_frames itself is told of already
        return None
    return Refused(
        reason=f"it has {found} frames, and {checked.reason}",
        fix=f"{checked.fix}, or let the recipe video_to_video take the first num_frames",
    )


_A = {"image": "an image", "video": "a video"}
