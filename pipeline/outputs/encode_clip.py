"""From a clip to its file and the record of it, and from there into the output."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import framefleet
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.outputs.clips import Clip
from framefleet.pipeline.outputs.media import encode
from framefleet.pipeline.outputs.media_settings import Media
from framefleet.pipeline.outputs.records import Record, public_arguments
from framefleet.pipeline.outputs.store import Store
from framefleet.pipeline.request import clip_fps


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedClip:
    """A clip as a file. record: as of a first attempt, without `uri`, `worker` and `row_indices`."""

    path: str
    content: bytes
    record: Record


def clip_path(row_id: str, suffix: str) -> str:
    """Where a row's clip lies in the output; 256 folders keep listings short."""
    return f"clips/{row_id[:2]}/{row_id}{suffix}"


def encode_clip(clip: Clip, media: Media) -> EncodedClip:
    """Return the file of a clip; equal clips give equal bytes in every process."""
    started = time.perf_counter()
    request = clip.request
    fps = clip_fps(request.fps, media.fps, clip.native_fps)
    content = encode(clip.frames, media=media, fps=fps, metadata=_tags(clip))
    num_frames, height, width, _ = clip.frames.shape
    is_image = media.format == "png"
    record = Record(
        row_id=clip.row_id,
        row_indices=(),
        uri="",
        media_sha256=hashlib.sha256(content).hexdigest(),
        frames_sha256=clip.frames_sha256,
        bytes=len(content),
        height=height,
        width=width,
        num_frames=num_frames,
        fps=None if is_image else fps,
        duration_s=None if is_image else num_frames / fps,
        arguments=public_arguments(request.arguments),
        seed=request.seed,
        scheduler=request.scheduler,
        recipe=request.recipe,
        model=clip.model,
        model_digest=clip.model_digest,
        numerics=canonical_json(clip.numerics),
        environment=json.dumps(clip.environment, sort_keys=True),
        batch_size=clip.batch_size,
        attempt=1,
        worker="",
        node=socket.gethostname(),
        started_at=clip.started_at,
        finished_at=datetime.now(UTC),
        encode_s=clip.seconds["encode_s"],
        denoise_s=clip.seconds["denoise_s"],
        decode_s=clip.seconds["decode_s"],
        write_s=time.perf_counter() - started,
        peak_memory_bytes=clip.peak_memory_bytes,
    )
    return EncodedClip(path=clip_path(clip.row_id, media.suffix), content=content, record=record)


def store_clip(store: Store, encoded: EncodedClip) -> Record:
    """Put the file where it belongs in an output; return its record, which says where and when.

    Never replaces another clip: a worker that was given up may still be at work, and come last. Raises
    StoreConflict when other bytes lie under the name.
    """
    started = time.perf_counter()
    store.create(encoded.path, encoded.content)
    return replace(
        encoded.record,
        uri=store.url_of(encoded.path),
        finished_at=datetime.now(UTC),
        write_s=encoded.record.write_s + time.perf_counter() - started,
    )


def _tags(clip: Clip) -> dict[str, str]:
    """What the file itself tells. Nothing that differs between two renders of one row."""
    return {
        "row_id": clip.row_id,
        "prompt": str(clip.request.arguments.get("prompt", "")),
        "seed": str(clip.request.seed),
        "model_digest": clip.model_digest,
        "framefleet": framefleet.__version__,
    }
