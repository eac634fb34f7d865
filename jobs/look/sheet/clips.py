"""In: a record. Out: its frames as small as they are shown, and the caption below them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from framefleet.jobs.look.sheet.choice import caption_text, value_of
from framefleet.pipeline.errors import FramefleetError, JobError
from framefleet.pipeline.model.specs.check import check_fps
from framefleet.pipeline.model.specs.refusal import Refused
from framefleet.pipeline.outputs.clip_frames import recorded_frames
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.media.contact_sheet import within
from framefleet.pipeline.outputs.parts.records import told_arguments
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.request import clip_fps

MAX_SHOWN_BYTES = 2 << 30  # of all frames of a picture, which are held at once
_GONE = (58, 30, 34)  # shown for a clip that cannot be read
_NAMES = {"num_inference_steps": "steps", "guidance_scale": "guidance"}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallClip:
    """frames: RGB, each within the width of a tile."""

    frames: Frames
    fps: float
    caption: str


def small_clip(
    store: Store,
    record: Mapping[str, Any],
    *,
    width: int,
    captions: Sequence[str],
    which: Callable[[int], Sequence[int]],
) -> SmallClip:
    """Return a clip as it is shown; a dark red one, and a warning, where it cannot be read.

    which: from the number of frames to those to show. Raises JobError where these, enlarged, take more than
    `MAX_SHOWN_BYTES`.
    """
    caption = caption_of(record, captions)
    try:
        frames = recorded_frames(store, record)
    except FramefleetError as error:
        log.warning("%s", error)
        return SmallClip(frames=np.full((1, width, width, 3), _GONE, np.uint8), fps=1.0, caption=caption)
    chosen = which(len(frames))
    if (size_bytes := np.asarray(within(frames[0], width)).nbytes * len(chosen)) > MAX_SHOWN_BYTES:
        raise more_than_shown(f"a clip of {len(frames):,} frames", size_bytes)
    small = [np.asarray(within(frames[number], width)) for number in chosen]
    fps = check_fps(record["fps"])  # images have none
    rate = clip_fps(None if isinstance(fps, Refused) else fps)
    return SmallClip(frames=np.stack(small), fps=rate, caption=caption)


def more_than_shown(what: str, size_bytes: int) -> JobError:
    return JobError(
        f"{what} would take {size_bytes / 1e9:.1f} GB as it is shown",
        "ask for fewer clips (--limit, --where) or smaller ones (--tile)",
    )


def caption_of(record: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return a caption: these columns, the first as its title; or prompt, seed and steps."""
    if names:
        title, *details = (str(value_of(record, name)) for name in names)
        named = [f"{name} {value}" for name, value in zip(names[1:], details, strict=True)]
        return f"{title}\n{', '.join(named)}"
    arguments = told_arguments(record)
    details = [f"seed {record['seed']}"]
    for name, short in _NAMES.items():
        if isinstance(value := arguments.get(name), int | float):
            details.append(f"{short} {caption_text(value)}")
    return f"{arguments.get('prompt') or ''}\n{', '.join(details)}"
