"""From a record and its row rendered again to both clips, read in one form, so that they can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from framefleet.pipeline.errors import NoFile, StoreError
from framefleet.pipeline.outputs.frames.audio import Pcm
from framefleet.pipeline.outputs.frames.frames import Pictures
from framefleet.pipeline.outputs.media.media import decode, decode_audio, decode_floats
from framefleet.pipeline.outputs.media.media_settings import LOSSY, Media
from framefleet.pipeline.outputs.parts.records import Record, values_of
from framefleet.pipeline.outputs.record_files import MAX_CLIP_BYTES, recorded_clip
from framefleet.pipeline.outputs.stores.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A row rendered again. Its functions are called where something differs."""

    record: Record
    media: Media  # how its record's clip was encoded, as far as that can be done again
    frames: Callable[[], Pictures | None]  # as they were rendered
    content: Callable[[], bytes]  # the file that they give


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoClips:
    """The clip that is stored, and that of the row rendered again."""

    there: bytes | None  # the stored file; None where it is neither the recorded one nor the new one
    there_sha256: str
    here: bytes  # the new one
    here_sha256: str
    is_lossy: bool  # their format does not preserve the frames themselves
    again: Again

    def frames(self) -> tuple[Pictures, Pictures] | None:
        """Return those of both: as they are decoded where the format has loss. None: not both have some."""
        now = self.again.frames()
        read = decode if now is None or now.dtype == np.uint8 else decode_floats
        if self.there is None or now is None:
            return None
        try:
            return read(self.there), decode(self.here) if self.is_lossy else now
        except StoreError:  # no clip, or sound alone
            return None

    def sounds(self) -> tuple[Pcm, Pcm] | None:
        """Return the samples of both, which have one rate. None: not both have some."""
        try:
            decoded = [decode_audio(one) for one in (self.there, self.here) if one is not None]
        except StoreError:  # no clip
            return None
        sounds = [one for one in decoded if one is not None]
        if len(sounds) < 2 or sounds[0][1] != sounds[1][1]:
            return None
        return sounds[0][0], sounds[1][0]


def two_clips(store: Store, then: Record, again: Again) -> TwoClips:
    """Return the clip of a record, and that of its row rendered again."""
    path, here = recorded_clip(values_of(then)).path, again.content()
    there, here_sha256 = _read(store, path) or b"", _sha256(here)
    there_sha256 = _sha256(there)
    return TwoClips(
        there=there if there_sha256 in (then.media_sha256, here_sha256) else None,
        there_sha256=there_sha256,
        here=here,
        here_sha256=here_sha256,
        is_lossy=path.endswith(tuple(f".{format}" for format in LOSSY)),
        again=again,
    )


def equal(pair: tuple[Any, Any] | None) -> bool:
    """Whether there are two arrays, and they are equal."""
    return pair is not None and np.array_equal(*pair)


def sha256_at(store: Store, path: str) -> str:
    """Return the digest of a file; that of no bytes where there is none that can be read whole."""
    return _sha256(_read(store, path) or b"")


def _read(store: Store, path: str) -> bytes | None:
    try:
        content = store.read(path, MAX_CLIP_BYTES + 1)
    except (FileNotFoundError, NoFile):
        return None
    return content if len(content) <= MAX_CLIP_BYTES else None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
