"""From a record, its stored files and the same row rendered again to what kind of difference there is."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from framefleet.jobs.keep.replay.differences import Difference, difference, one_level, sound_psnr_db
from framefleet.jobs.keep.replay.two_clips import Again, TwoClips, equal, sha256_at, two_clips
from framefleet.pipeline.outputs.damage import Damage
from framefleet.pipeline.outputs.media.media import decode, encode
from framefleet.pipeline.outputs.parts.records import Record, values_of
from framefleet.pipeline.outputs.record_files import recorded_clip, recorded_extras
from framefleet.pipeline.outputs.stores.store import Store

Likeness = Literal[
    "bit-exact",
    "record damaged",
    "file damaged",
    "off by one",
    "off by about one",
    "other encoder",
    "different",
    "not rendered",
]
FILE, _FRAMES, _SOUND = "media_sha256", "frames_sha256", "audio_sha256"
_TEXT, _EXTRAS = "extra_outputs", "extra_outputs_sha256"
_ENCODING = ("av", "framefleet")  # what of an environment decides how frames become a file
_TWICE_DB = 3.01  # two encoders that lose as much each: together twice the mean square

EnvironmentChange = tuple[str, str, str]  # what of the environment, then and now


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What a row rendered again is to its record and its stored files (docs/damage.md explains verdicts).

    which: columns of the record that differ, or are wrong. num_pixels, share, max_levels (of 255), psnr_db:
    how much frames differ, in a lossy format as they are decoded; psnr_db of sound where that alone
    differs. None where nothing could be compared. one_level_psnr_db: what single levels come to in a format
    with loss. doubt: what else it may be, where that cannot be decided.
    """

    verdict: Likeness
    which: tuple[str, ...] = ()
    num_pixels: int | None = None
    share: float | None = None
    max_levels: float | None = None
    psnr_db: float | None = None
    one_level_psnr_db: float | None = None
    doubt: str | None = None


def compared_digests(then: Record, now: Record) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield the digests that either has; nothing is said of sound that no earlier version kept."""
    is_earlier = then.frames_format is None and then.frames_sha256 is not None
    file = () if then.media_encoder else (FILE,)
    later = () if is_earlier else (_SOUND, _TEXT, _EXTRAS)
    for name in (_FRAMES, *later, *file):
        values = [getattr(record, name) for record in (then, now)]
        if name == _TEXT:  # any text, of a record that may be anybody's
            values = [text and hashlib.sha256(text.encode()).hexdigest() for text in values]
        if values != [None, None]:
            yield name, values[0], values[1]


def compare(
    store: Store,
    then: Record,
    again: Again,
    *,
    damages: Sequence[Damage],
    changes: Sequence[EnvironmentChange] = (),
) -> Compared:
    """Return what kind of difference there is.

    damages: of the record's files. changes: (name, then, now), of what the environment has become.
    """
    digests = compared_digests(then, again.record)
    which = tuple(name for name, there, here in digests if there != here and name != FILE)
    if not which and not damages:
        return Compared(verdict="bit-exact")
    clips = two_clips(store, then, again)
    wrong = tuple(_wrong_in_record(store, then, again, which, clips))
    if wrong and set(which) <= set(wrong):
        return Compared(verdict="record damaged", which=wrong, doubt=_unkept(which, clips))
    if not which:
        return Compared(verdict="file damaged", doubt=_unproven(then, clips, damages))
    return _different(then, again, tuple(name for name in which if name not in wrong), clips, changes)


def _wrong_in_record(
    store: Store, then: Record, again: Again, which: Sequence[str], clips: TwoClips
) -> Iterator[str]:
    """Yield the columns of a record that its own files and the row rendered again contradict."""
    if clips.there is not None:
        if _FRAMES in which and equal(clips.frames()):
            yield _FRAMES
        if _SOUND in which and equal(clips.sounds()):
            yield _SOUND
    file = recorded_extras(values_of(then))
    if _EXTRAS in which and file and sha256_at(store, file.path) == again.record.extra_outputs_sha256:
        yield _EXTRAS
    if clips.there is not None:
        if clips.there_sha256 != then.media_sha256:
            yield FILE
        if len(clips.there) != then.bytes:
            yield "bytes"


def _unkept(which: Sequence[str], clips: TwoClips) -> str | None:
    """Return what else equal clips may mean, where they do not keep all that was rendered."""
    if not clips.is_lossy or not {_FRAMES, _SOUND}.intersection(which):
        return None
    return "or the frames or the sound differ by less than this file, which has loss, keeps"


def _unproven(then: Record, clips: TwoClips, damages: Sequence[Damage]) -> str | None:
    """Return what else a stored clip of other bytes may mean, where the new file does not decide it."""
    path = recorded_clip(values_of(then)).path
    is_there = any(one.path == path and one.kind != "missing" for one in damages)
    if not is_there or clips.here_sha256 == then.media_sha256:
        return None
    return "or its media_sha256 is wrong: the row's file has other bytes here, so that nothing confirms it"


def _different(
    then: Record, again: Again, which: tuple[str, ...], clips: TwoClips, changes: Sequence[EnvironmentChange]
) -> Compared:
    """Return how much clips differ. which: the columns that differ."""
    if clips.there is None or _FRAMES not in which:
        is_text = which == (_TEXT,)
        return Compared(
            verdict="different",
            which=which,
            psnr_db=sound_psnr_db(clips.sounds()) if clips.there and _SOUND in which else None,
            doubt="or the text in its record is damaged, which no file holds" if is_text else None,
        )
    frames = clips.frames()
    if frames is None or frames[0].shape != frames[1].shape:
        return Compared(verdict="different", which=which)
    distance = difference(*frames)
    found = Compared(
        verdict="different",
        which=which,
        num_pixels=distance.num_pixels,
        share=distance.share,
        max_levels=distance.max_levels,
        psnr_db=distance.psnr_db,
    )
    if clips.is_lossy:
        return _with_loss(found, distance, then, again, changes)
    is_one = which == (_FRAMES,) and distance.max_levels <= 1
    return replace(found, verdict="off by one") if is_one else found


def _with_loss(
    found: Compared, distance: Difference, then: Record, again: Again, changes: Sequence[EnvironmentChange]
) -> Compared:
    """Return what is found, with the loss of frames that differ by one level, which files do not keep."""
    frames = again.frames()
    assert frames is not None, "some differ"
    encoded = partial(encode, media=again.media, fps=then.fps or 1.0, metadata={})
    reference = one_level(frames.astype(np.uint8, copy=False), encoded)
    if math.isfinite(reference.psnr_db):
        found = replace(found, one_level_psnr_db=reference.psnr_db)
    if found.which == (_FRAMES,) and distance.is_like(reference):
        return replace(found, verdict="off by about one")
    others = _other_encoder(then, changes)
    if not others:
        return found
    loss = difference(frames, decode(encoded(frames)))
    is_within = found.which == (_FRAMES,) and distance.psnr_db >= loss.psnr_db - _TWICE_DB
    doubt = f"its file was encoded otherwise, which is part of the difference: {others}"
    return replace(found, verdict="other encoder" if is_within else "different", doubt=doubt)


def _other_encoder(then: Record, changes: Sequence[EnvironmentChange]) -> str:
    """Return how the encoder of the stored file differs from ours, as far as its record says; "" if not."""
    own = [f"{then.media_encoder} then"] if "nvenc" in (then.media_encoder or "") else []
    found = [f"{name} {there} then, {here} now" for name, there, here in changes if name in _ENCODING]
    return ", ".join([*own, *found])
