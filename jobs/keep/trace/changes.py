"""In: a record and a file that came from its clip. Out: what was changed on the way, as far as is seen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from framefleet.jobs.keep.trace.lookup import TracedRecord
from framefleet.pipeline.outputs.media.media_settings import LABELLED
from framefleet.pipeline.rows.inputs.marks import Contents, FoundMarks

_NEAR = 0.02  # of a side: sizes are rounded to whole, often to even pixels


def changes_of(found: TracedRecord, marks: FoundMarks) -> Iterator[str]:
    """Yield what differs from the clip that the record is about."""
    yield from _missing_marks(found, marks)
    format = _format(found)
    if marks.format and format not in marks.format and not format.endswith(".zip"):
        yield f"written as {marks.format} instead of {format}"
    if marks.contents is None:
        yield "it cannot be decoded"
        return
    differences = [*_size(found, marks, marks.contents), *_length(found, marks.contents)]
    yield from differences
    if not differences:
        same = (found.record["marked_sha256"], found.record["frames_sha256"])
        yield "its frames are the same" if marks.contents.sha256 in same else "encoded again"


def _missing_marks(found: TracedRecord, marks: FoundMarks) -> Iterator[str]:
    if found.certificates and marks.manifest is None:
        yield "the signed manifest was removed"
    if found.marks.get("watermarks") and not marks.watermarks:
        yield "the watermark is not found"
    for mark in marks.watermarks:
        if not found.row_id.startswith(mark.prefix):
            yield f"its {mark.part} carry the watermark of row {mark.prefix}..."
    if found.marks.get("label") and marks.label is None and _format(found) in LABELLED:
        yield "the label was removed"


def _format(found: TracedRecord) -> str:
    return str(found.record["path"] or found.record["uri"]).rpartition("/")[2].partition(".")[2]


def _size(found: TracedRecord, marks: FoundMarks, shown: Contents) -> Iterator[str]:
    was = np.array([found.record["height"] or 0, found.record["width"] or 0])
    if shown.size is None or not was.all():
        return
    now, said = np.array(shown.size), f"{was[0]} x {was[1]} to {shown.size[0]} x {shown.size[1]}"
    scale = next((one.scale for one in marks.watermarks if one.scale), None)
    if scale is None:
        ratio = now / was
        if ratio.max() / ratio.min() > 1 + _NEAR:
            yield f"cropped or stretched, from {said}"
        elif ratio.max() != 1:
            yield f"scaled, from {said}"
        return
    left = now / scale / was  # of the clip's height and width
    if abs(scale - 1) > _NEAR / 4:
        yield f"scaled to {scale:.0%}"
    if left.min() < 1 - _NEAR:
        yield f"cropped to {min(left[0], 1):.0%} of the height and {min(left[1], 1):.0%} of the width"


def _length(found: TracedRecord, shown: Contents) -> Iterator[str]:
    was = found.record
    if shown.num_frames and was["num_frames"] and shown.num_frames != was["num_frames"]:
        yield f"{shown.num_frames:,} frames instead of {was['num_frames']:,}"
    if shown.fps and was["fps"] and abs(shown.fps - was["fps"]) > 0.01 * was["fps"]:
        yield f"{shown.fps:g} frames per second instead of {was['fps']:g}"
    if was["audio_sha256"] and not shown.has_sound:
        yield "the sound was removed"
