"""Rows of an output rendered again by a fleet: the same job, by the ordinary means of `render`, elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np

from framefleet.jobs.job.output import below
from framefleet.jobs.keep.replay.two_clips import Again
from framefleet.jobs.render.output_job import claimed_job
from framefleet.jobs.render.render import render_rows
from framefleet.jobs.show.watch import Watch
from framefleet.pipeline.outputs.frames.audio import Audio
from framefleet.pipeline.outputs.frames.frames import Pictures
from framefleet.pipeline.outputs.layout import CHOSEN, SCRATCH
from framefleet.pipeline.outputs.media.media import decode, decode_audio, decode_floats, encode, read_metadata
from framefleet.pipeline.outputs.media.media_settings import LOSSY, Media, MediaFormat
from framefleet.pipeline.outputs.parts.records import Record, values_of
from framefleet.pipeline.outputs.record_files import recorded_clip
from framefleet.pipeline.outputs.stores.store import Store

# In place of formats with loss, whose files do not say which frames were rendered.
_LOSSLESS = {"format": "mkv", "encoder": None, "crf": None}


@contextmanager
def rendered_by_fleet(
    output: str, row_ids: Collection[str], sets: Sequence[str], watch: Watch, *, format: MediaFormat, run: str
) -> Iterator[Store]:
    """Yield an output that holds these rows, rendered now, as far as they could be; it goes afterwards.

    sets: as of `load_job`, in place of what job.json says. format: of the output's clips; those rendered now
    are lossless. run: a name that no other such render has.
    """
    job = claimed_job(output, sets)
    place = f"{output.rstrip('/')}/{SCRATCH}/{run}"
    try:
        media = job.media.model_copy(update=_LOSSLESS if format in LOSSY else {"format": format})
        # What is compared is frames, sound and files: a label is put into these here, a signature nowhere.
        marks = job.marks.model_copy(update={"sign": None, "label": False})
        changed: dict[str, Any] = {"output": place, "media": media, "marks": marks}
        plain = job.model_copy(update={**changed, "scores": [], "draft": None})
        table = below(job, f"{CHOSEN}/*.parquet") if job.draft else None
        render_rows(plain, watch, only=row_ids, table=table)
        yield Store(place, job.storage_options)
    finally:
        Store(output, job.storage_options).delete_all(f"{SCRATCH}/{run}")


def rendered(scratch: Store, record: Record, media: Media) -> Again:
    """Return a row that a fleet rendered. media: how the clips of its output are encoded."""
    path = recorded_clip(values_of(record)).path
    read = cache(partial(scratch.read, path))
    return Again(
        record=record,
        media=media,
        frames=lambda: _frames(record, read()),
        content=lambda: _encoded(record, read(), media) if media.format in LOSSY else read(),
    )


def _frames(record: Record, content: bytes) -> Pictures | None:
    if record.frames_format is None:
        return None
    return (decode_floats if record.frames_format.endswith("float32") else decode)(content)


def _encoded(record: Record, content: bytes, media: Media) -> bytes:
    """Return the file of the output's own format."""
    assert record.fps is not None, "mkv has one always"
    tags, sound = read_metadata(content), decode_audio(content)
    audio = None
    if sound:
        samples = sound[0].T.astype(np.float32) / np.float32(32767)
        audio = Audio(samples=samples, sample_rate=sound[1])
    return encode(decode(content), media=media, fps=record.fps, metadata=tags, audio=audio)
