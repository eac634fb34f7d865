"""From a clip to its file and its record, and from there into the output."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from framefleet.pipeline.errors import StoreConflict
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.outputs import layout
from framefleet.pipeline.outputs.embedded_text import file_tags
from framefleet.pipeline.outputs.file_step import FileStep, StepInput, suffix_of
from framefleet.pipeline.outputs.frames.frames import Pictures, frames_format, frames_sha256
from framefleet.pipeline.outputs.frames.result import Audio, audio_sha256
from framefleet.pipeline.outputs.media.media import encode, preview_of
from framefleet.pipeline.outputs.media.media_settings import SAME_RATE, VIDEOS, Media, out_of_step
from framefleet.pipeline.outputs.parts.records import Record, public_arguments
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.request import clip_fps

if TYPE_CHECKING:
    from framefleet.pipeline.outputs.clips import Clip

log = logging.getLogger(__name__)
# Values that a record takes over unchanged.
_OF_CLIP = ["row_id", "frames_sha256", "model", "model_digest", "license", "batch_size", "started_at"]
_OF_CLIP += ["peak_memory_bytes", "num_prompt_tokens", "is_prompt_cut"]
_SECONDS = ("encode_s", "denoise_s", "decode_s", "compute_s")
_OF_REQUEST = ("seed", "scheduler", "recipe")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedClip:
    """A clip as a file, with the files next to it."""

    suffix: str  # of its name
    content: bytes
    record: Record  # of a first attempt, without paths, `worker` and `row_indices`
    extras: bytes | None = None  # the file of arrays that were returned besides it, if any
    preview: bytes | None = None  # a still
    label: bytes | None = None  # an XMP file
    frames: Pictures | None = None  # those in the file, as steps changed them
    derived: bytes | None = None  # the file of a second clip that a step made


def encode_clip(clip: Clip, media: Media, steps: Collection[FileStep] = ()) -> EncodedClip:
    return encode_input(StepInput(clip=clip, media=media), steps)


def encode_input(of: StepInput, steps: Collection[FileStep]) -> EncodedClip:
    """Return the file of a clip; equal clips give equal bytes in every process, unless a step differs.

    steps: in their order. Raises RenderError for what the format cannot hold and for sound out of step with
    its frames, and whatever steps raise.
    """
    clip, media = of.clip, of.media
    started = time.perf_counter()
    request = clip.request
    audio = clip.audio if media.audio else None
    fps, fps_source = rate_of(clip, media)
    frames, sound = clip.frames, audio
    for step in steps:
        frames = None if frames is None else step.changed_frames(frames, of)
        sound = None if sound is None else step.returned("sound", step.sound(sound, of), Audio)
    sent = _as_sent(clip, media, steps, fps)
    lengths = _lengths(clip, frames, media, fps, fps_source)
    tags = file_tags(clip, media.embed, fps=lengths["fps"] if fps_source == "row" else None)
    content = sent or encode_file(of, steps, frames, sound, fps=fps, tags=tags)
    unrepeatable = ("as sent" if sent else media.unrepeatable, *(step.unrepeatable for step in steps))
    extras = clip.extras.file()
    preview = None if clip.frames is None or not media.previews else preview_of(clip.frames)
    same: dict[str, Any] = {name: clip.seconds.get(name) for name in _SECONDS}
    same |= {name: getattr(clip, name) for name in _OF_CLIP}
    same |= {name: getattr(request, name) for name in _OF_REQUEST}
    record = Record(
        **same,
        **lengths,
        row_indices=(),
        uri="",
        media_sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        arguments=public_arguments(request.arguments),
        numerics=canonical_json(clip.numerics),
        environment=json.dumps(clip.environment, sort_keys=True),
        attempt=1,
        worker="",
        node=socket.gethostname(),
        finished_at=datetime.now(UTC),
        write_s=time.perf_counter() - started,
        frames_format=None if clip.frames is None else frames_format(clip.frames),
        audio_sha256=clip.audio_sha256 if audio else None,
        audio_sample_rate=audio.sample_rate if audio else None,
        audio_channels=audio.num_channels if audio else None,
        extra_outputs=clip.extras.json(),
        idle_s=sum(clip.idle.values()),
        idle_causes=canonical_json({cause: round(seconds, 6) for cause, seconds in clip.idle.items()}),
        media_encoder=", ".join(filter(None, unrepeatable)) or None,
        model_name=request.model or None,
        embed="none" if sent else media.embed,
        extra_outputs_sha256=None if extras is None else hashlib.sha256(extras).hexdigest(),
        marked_sha256=None if frames is None or frames is clip.frames else frames_sha256(frames),
        marked_audio_sha256=None if sound is None or sound is audio else audio_sha256(sound),
    )
    second = None
    for step in steps:
        if (derived := step.second_file(of)) is not None:
            derived = step.returned("second_file", derived, type(clip))
            plain = StepInput(clip=derived, media=replace(media, previews=False), read=of.read)
            second = encode_input(plain, [other for other in steps if other is not step])
            of_clip, names = second.record, ("bytes", "height", "width", "num_frames", "fps")
            values = {f"derived_{name}": getattr(of_clip, name) for name in names}
            record = replace(record, derived_sha256=of_clip.media_sha256, **values)
    return EncodedClip(
        suffix=suffix_of(media, steps),
        content=content,
        record=record,
        extras=extras,
        preview=preview,
        label=of.labels[0] if of.labels else None,
        frames=frames,
        derived=second.content if second else None,
    )


def _as_sent(clip: Clip, media: Media, steps: Collection[FileStep], fps: float) -> bytes | None:
    """Return the file that an engine has sent, if it is what the job asks for."""
    rate = clip.native_fps
    is_of_rate = rate is None or abs(fps - rate) <= rate / SAME_RATE
    is_whole = media.audio or clip.audio is None
    if steps or clip.sent is None or clip.sent.format != media.format or not (is_of_rate and is_whole):
        return None
    return clip.sent.content


def encode_file(
    of: StepInput,
    steps: Collection[FileStep],
    frames: Pictures | None,
    sound: Audio | None,
    *,
    fps: float,
    tags: Mapping[str, str],
) -> bytes:
    """Return the file of frames and sound that steps have changed already."""
    added = {
        step.returned("tags", key, str): step.returned("tags", text, str)
        for step in steps
        for key, text in step.returned("tags", step.tags(of), dict).items()
    }
    content = encode(frames, media=of.media, fps=fps, metadata={**tags, **added}, audio=sound)
    for step in steps:
        content = step.changed_file(content, of)
    return content


def rate_of(clip: Clip, media: Media) -> tuple[float, str]:
    """Return frames per second, and where they come from. Raises RenderError if sound gets out of step."""
    audio, num_frames = clip.audio, 0 if clip.frames is None else len(clip.frames)
    of_sound = num_frames / audio.duration_s if audio and num_frames > 1 else None
    rates = {"row": clip.request.fps, "job": media.fps, "model": clip.native_fps, "sound": of_sound}
    fps = clip_fps(*rates.values())
    source = next((name for name, rate in rates.items() if rate), "framefleet")
    if audio and media.audio and num_frames:
        native = clip.native_fps or of_sound
        if source in ("row", "job") and native and abs(fps - native) > native / SAME_RATE:
            raise out_of_step(fps, native)
        if num_frames > 1 and abs(num_frames / fps - audio.duration_s) > 1 / fps:
            log.warning(
                "row %s: its %d frames last %.2f s at %g fps, and its sound %.2f s",
                *(clip.row_id, num_frames, num_frames / fps, fps, audio.duration_s),
                extra={"row_id": clip.row_id},
            )
    return fps, source


def _lengths(
    clip: Clip, frames: Pictures | None, media: Media, fps: float, fps_source: str
) -> dict[str, Any]:
    """frames: those of the file, whose size a step may have changed."""
    sound_s = clip.audio.duration_s if clip.audio and media.audio else None
    if frames is None:
        nothing = dict.fromkeys(("height", "width", "num_frames", "fps"))
        return nothing | {"duration_s": sound_s, "audio_duration_s": sound_s}
    num_frames, height, width, _ = frames.shape
    is_layers = media.format == "png.zip" and not (clip.request.fps or media.fps or clip.native_fps)
    is_still = is_layers or (num_frames == 1 and media.format not in VIDEOS)
    return {
        "height": height,
        "width": width,
        "num_frames": num_frames,
        "fps": None if is_still else fps,
        "duration_s": None if is_still else num_frames / fps,
        "fps_source": None if is_still else fps_source,
        "audio_duration_s": sound_s,
    }


def store_clip(store: Store, encoded: EncodedClip) -> Record:
    """Put the file into an output; return its record. Never replaces bytes: a lost worker may come last."""
    started = time.perf_counter()
    record, extras_at, derived_at = encoded.record, None, None
    attempts = layout.tags(record.media_sha256, record.extra_outputs_sha256, record.derived_sha256)
    if encoded.extras is not None:
        extras_at = _create(
            store, [layout.extras_path(record.row_id, tag) for tag in attempts], encoded.extras
        )
    if encoded.derived is not None:
        derived = [layout.derived_path(record.row_id, encoded.suffix, tag) for tag in attempts]
        derived_at = _create(store, derived, encoded.derived, label=encoded.label)
    clips = [layout.clip_path(record.row_id, encoded.suffix, tag) for tag in attempts]
    path = _create(store, clips, encoded.content, label=encoded.label)
    still_at = None
    if encoded.preview is not None:
        still_at = layout.preview_path(path)
        store.write(still_at, encoded.preview)
    return replace(
        record,
        uri=store.url_of(path),
        path=path,
        extra_outputs_path=extras_at,
        derived_path=derived_at,
        preview_path=still_at,
        finished_at=datetime.now(UTC),
        write_s=record.write_s + time.perf_counter() - started,
    )


def _create(store: Store, paths: list[str], content: bytes, *, label: bytes | None = None) -> str:
    """Store a file under the first of these names that has no other bytes; return the name."""
    for path in paths:
        if label is not None:  # before the clip, which may be adopted as soon as it is there
            store.write(layout.label_path(path), label)
        try:
            store.create(path, content)
        except StoreConflict:
            if path == paths[-1]:
                raise
        else:
            break
    return path
