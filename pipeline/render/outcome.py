"""From a row that ended to its clip, or to why there is none."""

from __future__ import annotations

import traceback
from collections.abc import Mapping

from framefleet.pipeline.errors import OutOfMemory
from framefleet.pipeline.memory import is_out_of_memory, peak_memory_bytes
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.outputs.clips import Clip, Failure, Outcome
from framefleet.pipeline.outputs.frames.audio import audio_sha256
from framefleet.pipeline.outputs.frames.result import Rendered
from framefleet.pipeline.render.checkpoints.checkpoint import HalfDone
from framefleet.pipeline.render.fused.batcher import RowTask
from framefleet.pipeline.render.row_queue import RenderRow
from framefleet.pipeline.render.row_seconds import ClipSeconds
from framefleet.pipeline.rows.identity import Identity
from framefleet.pipeline.rows.prompt_lengths import PromptReading


def clip_of(
    task: RowTask,
    row: RenderRow,
    model: Model,
    identity: Identity,
    reading: PromptReading | None,
    *,
    idle: Mapping[str, float],
) -> Clip:
    """Return the clip of a row that was rendered. task: which rendered it. idle: since the clip before."""
    rendered: Rendered = task.value
    audio = rendered.audio
    attention = {"attention": model.attention.name} if model.attention else {}
    return Clip(
        row_id=row.row_id,
        request=row.request,
        pixels=rendered.pixels,
        audio=audio,
        audio_sha256=None if audio is None else audio_sha256(audio),
        extras=rendered.extras,
        native_fps=model.spec.fps_of(row.request.arguments),
        model=model.settings.name,
        model_digest=identity.model_digest,
        license=model.settings.license,
        numerics=identity.numerics,
        seconds=seconds_of(task, row),
        idle=idle,
        batch_size=task.batch_size,
        peak_memory_bytes=peak_memory_bytes(model.environment["device"]),
        environment={**model.environment, **attention},
        started_at=row.started_at,
        was_batched=not row.is_plain,
        num_prompt_tokens=reading.num_tokens if reading else None,
        is_prompt_cut=reading.is_cut if reading else None,
    )


def seconds_of(task: RowTask, row: RenderRow) -> ClipSeconds:
    """Return what a row has taken so far, in other processes too."""
    others = {"encode_s": 0.0, "decode_s": 0.0, "compute_s": row.compute_s, **task.seconds}
    others["denoise_s"] = task.last_forward_at - task.first_forward_at
    others = {name: spent + row.earlier.get(name, 0.0) for name, spent in others.items()}
    return ClipSeconds(row.seconds, others)


def failure_of(error: Exception, row: RenderRow, half_done: HalfDone | None = None) -> Failure:
    """Return the report of a row that failed. The error loses its frames. half_done: its checkpoint."""
    text = _dropped_frames(error)
    if is_out_of_memory(error):
        error = OutOfMemory(
            f"one row alone does not fit: {error}",
            "render smaller, or shorter, or in bf16; or set model.offload or model.vae_tiling",
        )
    return Failure(row_id=row.row_id, request=row.request, error=error, traceback=text, half_done=half_done)


def with_frames(outcome: Outcome) -> Outcome:
    """Wait for a clip's frames; return it, or why there are none that can be kept."""
    if isinstance(outcome, Clip):
        try:
            _ = outcome.frames
        except Exception as error:  # as of a recipe, of which they are the end
            text = _dropped_frames(error)
            return Failure(row_id=outcome.row_id, request=outcome.request, error=error, traceback=text)
    return outcome


def _dropped_frames(error: BaseException | None) -> str:
    """Return an error's traceback, and have it forget the frames, which hold the row's tensors."""
    text = "".join(traceback.format_exception(error))
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
    return text
