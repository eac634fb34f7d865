"""From a clip to a file in the store, and the record that says so."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from datetime import UTC, datetime

import framefleet
from framefleet.cluster.messages import Assignment, WorkerSetup
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.outputs.media import encode
from framefleet.pipeline.outputs.records import Record
from framefleet.pipeline.render.clips import Clip
from framefleet.pipeline.request import FALLBACK_FPS
from framefleet.pipeline.rows.identity import public


def clip_path(row_id: str, suffix: str) -> str:
    """Where a row's clip lies in the output; 256 folders keep listings short."""
    return f"clips/{row_id[:2]}/{row_id}{suffix}"


def write_clip(
    clip: Clip, assignment: Assignment, started_at: datetime, model: Model, setup: WorkerSetup
) -> Record:
    """Encode and upload a clip; return its record, without what only the driver knows.

    Never replaces another clip: a worker that was given up may still be at work, and come last. Raises
    StoreConflict when other bytes lie under the name.
    """
    started = time.perf_counter()
    request = clip.request
    fps = request.fps or setup.media.fps or model.spec.fps_of(request.arguments) or FALLBACK_FPS
    media = encode(clip.frames, media=setup.media, fps=fps, metadata=_tags(clip, model))
    path = clip_path(clip.row_id, setup.media.suffix)
    setup.store.create(path, media)
    num_frames, height, width, _ = clip.frames.shape
    is_image = setup.media.format == "png"
    return Record(
        row_id=clip.row_id,
        row_indices=(),
        uri=setup.store.url_of(path),
        media_sha256=hashlib.sha256(media).hexdigest(),
        frames_sha256=clip.frames_sha256,
        bytes=len(media),
        height=height,
        width=width,
        num_frames=num_frames,
        fps=None if is_image else fps,
        duration_s=None if is_image else num_frames / fps,
        arguments=canonical_json(public(request.arguments)),
        seed=request.seed,
        scheduler=request.scheduler,
        recipe=request.recipe,
        model=model.settings.name,
        model_digest=model.digest,
        numerics=canonical_json(model.settings.numerics(setup.batching.mode)),
        environment=json.dumps(clip.environment, sort_keys=True),
        batch_size=clip.batch_size,
        attempt=assignment.attempt,
        worker="",
        node=socket.gethostname(),
        started_at=started_at,
        finished_at=datetime.now(UTC),
        encode_s=clip.seconds["encode_s"],
        denoise_s=clip.seconds["denoise_s"],
        decode_s=clip.seconds["decode_s"],
        write_s=time.perf_counter() - started,
        peak_memory_bytes=clip.peak_memory_bytes,
    )


def _tags(clip: Clip, model: Model) -> dict[str, str]:
    """What the file itself tells. Nothing that differs between two renders of one row."""
    return {
        "row_id": clip.row_id,
        "prompt": str(clip.request.arguments.get("prompt", "")),
        "seed": str(clip.request.seed),
        "model_digest": model.digest,
        "framefleet": framefleet.__version__,
    }
