"""In: a clip. Out: HTML that plays it by itself, for notebooks."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from framefleet.pipeline.outputs.encode_clip import encode_clip
from framefleet.pipeline.outputs.media.media import encode
from framefleet.pipeline.outputs.media.media_settings import Media

if TYPE_CHECKING:
    from framefleet.pipeline.outputs.clips import Clip

_SIDE = 512  # pixels that a small clip is shown as wide as: 64 of them are a stamp


def player(clip: Clip) -> str:
    """Return a video, a picture or a sound with its prompt below.

    Of what browsers do not play, frames with alpha and HDR, the first one; of HDR cut to [0, 1].
    """
    prompt = escape(str(clip.request.arguments.get("prompt", "")))
    caption = f"{prompt} <small>seed {clip.request.seed}</small>"
    return f'<figure style="margin:0">{_shown(clip)}<figcaption>{caption}</figcaption></figure>'


def _shown(clip: Clip) -> str:
    frames = clip.frames
    if frames is None:
        return f'<audio controls src="{_url("audio/wav", _file(clip, Media(format="wav")))}"></audio>'
    style = f'style="width:{max(_SIDE, frames.shape[2])}px;max-width:100%"'
    if len(frames) > 1 and frames.dtype == np.uint8 and frames.shape[-1] == 3:
        video = _url("video/mp4", _file(clip, Media()))
        return f'<video controls autoplay loop muted playsinline {style} src="{video}"></video>'
    first = frames[:1] if frames.dtype == np.uint8 else (frames[:1].clip(0, 1) * 255).round().astype(np.uint8)
    picture = encode(first, media=Media(format="png"), fps=1, metadata={})
    return f'<img {style} src="{_url("image/png", picture)}">'


def _file(clip: Clip, media: Media) -> bytes:
    return encode_clip(clip, media).content


def _url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"
