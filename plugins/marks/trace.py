"""Find the marks in any files, and the rows that they came from.

A batch of files is looked up in one pass over each output's records. Files and outputs are not trusted.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from framefleet.api.clips import read_metadata
from framefleet.api.commands import Overview
from framefleet.api.engines import file_kind
from framefleet.api.errors import JobError, StoreError, count_text
from framefleet.api.outputs import MAX_CLIP_BYTES, ROW_ID, Output
from framefleet.api.texts import parse_object, public_url
from framefleet.pipeline.errors import CONTROLS
from framefleet.pipeline.guards.regular_file import read_regular
from framefleet.pipeline.outputs.embedded_text import row_id_in
from framefleet.pipeline.outputs.layout import LABEL_SUFFIX
from framefleet.pipeline.outputs.media.media_settings import LOSSY
from framefleet.plugins.keep.replay.recorded_row import is_opened
from framefleet.plugins.marks.file_marks import SPREAD, Contents, FoundMarks, marks_in
from framefleet.plugins.marks.label import label_in
from framefleet.plugins.marks.manifest import read_pem
from framefleet.plugins.marks.manifest_reader import read_manifest
from framefleet.plugins.marks.settings import LABELLED, Watermark, WatermarkName
from framefleet.plugins.marks.watermark import open_watermark

# Columns that are shown, or compared with a file.
TRACED_COLUMNS = (
    *("row_id", "row_indices", "arguments", "seed", "scheduler", "recipe"),
    *("model", "model_digest", "license"),
    *("uri", "path", "media_sha256", "frames_sha256", "marked_sha256", "audio_sha256", "marks"),
    *("derived_path", "derived_sha256"),
    *("height", "width", "num_frames", "fps", "finished_at"),
)
_DIGESTS = ("media_sha256", "derived_sha256")  # columns in which to look for a file's digest
_MAX_INDEX_BYTES = 1 << 20
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(slots=True)
class Wanted:
    """What to look for. prefixes: of row_ids."""

    digests: set[str] = field(default_factory=set)
    row_ids: set[str] = field(default_factory=set)
    prefixes: set[str] = field(default_factory=set)

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        matches = pc.is_in(table["row_id"], pa.array(sorted(self.row_ids), pa.string()))
        digests = pa.array(sorted(self.digests), pa.string())
        for column in _DIGESTS:
            matches = pc.or_(matches, pc.is_in(table[column], digests))
        for length in {len(prefix) for prefix in self.prefixes}:
            some = pa.array(sorted(one for one in self.prefixes if len(one) == length), pa.string())
            matches = pc.or_(matches, pc.is_in(pc.utf8_slice_codeunits(table["row_id"], 0, length), some))
        return matches


@dataclass(frozen=True, slots=True)
class TracedRecord:
    """A record, with the URL of its output."""

    output: str
    record: Mapping[str, Any]

    @property
    def row_id(self) -> str:
        return str(self.record["row_id"])

    @property
    def marks(self) -> Mapping[str, Any]:
        """The marks of its clip, as recorded. Not trusted."""
        return parse_object(self.record["marks"] or "")

    @property
    def certificate(self) -> str | None:
        """SHA-256 of the certificate that signed its clip."""
        own = self.marks.get("c2pa")
        return own if isinstance(own, str) and _SHA256.fullmatch(own) else None

    @property
    def format(self) -> str:
        return str(self.record["path"] or self.record["uri"]).rpartition("/")[2].partition(".")[2]


def open_outputs(places: Sequence[str], storage_options: Mapping[str, Any] | None) -> list[Output]:
    """Return outputs and their inner outputs. Raises JobError for other places.

    places: outputs, or text files that list outputs, one per line.
    """
    outputs = [Output.open(place, storage_options) for listed in places for place in _listed(listed)]
    return [one for output in outputs for one in (output, *output.inner.values()) if one.is_begun]


def look_up(outputs: Sequence[Output], wanted: Wanted) -> Iterator[TracedRecord]:
    """Yield the matching records of all outputs, in one pass over each."""
    for output in outputs:
        for table in output.records(TRACED_COLUMNS):
            for record in table.filter(wanted.mask(table)).to_pylist():
                yield TracedRecord(output.url, record)


def _listed(place: str) -> list[str]:
    if "://" in place or not Path(place).exists() or Path(place).is_dir():
        return [place]
    fix = "use an output, or a text file with one output per line"
    try:
        content = read_regular(place, _MAX_INDEX_BYTES + 1)
    except OSError as error:
        raise JobError(f"--output: {place} cannot be read: {error.strerror}", fix) from None
    lines = [line.decode("utf-8", "replace").strip() for line in content.removeprefix(BOM_UTF8).splitlines()]
    if len(content) > _MAX_INDEX_BYTES or any(map(CONTROLS.search, lines)):
        raise JobError(f"--output: {place} is neither an output nor a text file that lists outputs", fix)
    for number, line in enumerate(lines, start=1):
        if not is_opened(line):  # the list may not be trusted with the user's storage options
            problem = f"--output: line {number} of {place} is {public_url(line)}, no folder or object store"
            raise JobError(problem, "if you trust it, name it with --output")
    return [line for line in lines if line]


FoundBy = Literal["digest", "manifest", "watermark", "tags"]
# own: signed with the certificate of the output that has the row. foreign: it names a row of an output, but
# has another certificate. trusted: signed with one of the given certificates. unknown: none of these.
Signer = Literal["own", "foreign", "trusted", "unknown"]
_AT_ONCE = 64  # files per pass over the outputs
_MAX_PACKET = 1 << 16  # bytes of a label next to a file
_NEAR = 0.02  # share of a side; sizes are rounded to whole, often even pixels

AnyPath = str | Path

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Traced(Overview):
    """The result for one file."""

    file: str
    sha256: str = ""
    found_by: FoundBy | None = None  # the mark that names its row; None if there is none, or no output has it
    row_id: str | None = None  # of the row; only its first digits if only a watermark names it
    output: str | None = None
    record: Mapping[str, Any] | None = None  # of the row; None if no output was given, or none has it
    candidates: tuple[str, ...] = ()  # rows that a short watermark may mean
    marks: FoundMarks | None = None
    signer: Signer | None = None  # who signed the manifest
    tagged: str | None = None  # row_id in tags or a label, which anybody can write
    changes: tuple[str, ...] = ()  # since the clip was stored
    problem: str | None = None  # why it could not be read
    hint: str | None = None  # why its row may not have been found

    def overview(self) -> Mapping[str, object]:
        row = f"{self.row_id} of {self.output or 'an output'}, by its {self.found_by}"
        return {
            "file": self.file,
            "row": self.problem or (row if self.found_by else "not found"),
            "hint": self.hint,
            "candidates": ", ".join(self.candidates) or None,
            "manifest": self.marks.manifest.state if self.marks and self.marks.manifest else None,
            "watermarks": ", ".join(one.name for one in self.marks.watermarks) or None
            if self.marks
            else None,
            "changed": "; ".join(self.changes) or None,
        }

    @property
    def signed(self) -> str | None:
        """The row_id in the manifest, unless it was altered."""
        manifest = self.marks.manifest if self.marks else None
        return _row_id(manifest.clip.get("row_id")) if manifest and manifest.is_sound else None


def trace(
    files: AnyPath | Iterable[AnyPath],
    *,
    outputs: AnyPath | Iterable[AnyPath] = (),
    trust: AnyPath | None = None,
    watermarks: Mapping[str, AnyPath] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> list[Traced]:
    """Return the marks of files and the rows that they came from.

    files: paths of files, or of folders with images, videos and sounds. outputs: to search for records, or
    text files with one output per line. trust: a file of certificates in PEM; signers with a certificate
    issued by these are trusted. watermarks: weights by name, e.g. {"videoseal": "/models/videoseal.pth"};
    spread needs none. Raises JobError for a file or output that cannot be opened.
    """
    paths, places = ([one] if isinstance(one, str | Path) else list(one) for one in (files, outputs))
    opened = open_outputs([str(place) for place in places], storage_options)
    return list(trace_files(map(Path, paths), opened, trust, watermarks or {}))


def trace_files(
    paths: Iterable[Path], outputs: Sequence[Output], trust: AnyPath | None, weights: Mapping[str, AnyPath]
) -> Iterator[Traced]:
    """Trace one file after another, as `trace` does."""
    if find_spec("c2pa") is None:
        fix = "pip install 'framefleet[c2pa]'"
        if trust:
            raise JobError("--trust needs c2pa-python, to read signed manifests", fix)
        log.warning("signed manifests are not read without c2pa-python: %s", fix)
    anchors = read_pem("--trust", str(trust)).decode("utf-8", "replace") if trust else None
    watermarks, names = [SPREAD], [one for one in get_args(WatermarkName) if one != SPREAD.name]
    for name, place in weights.items():
        if name not in names:
            problem = f"--watermark {name}: this watermark does not exist"
            raise JobError(problem, f"use one of {', '.join(names)}")
        watermarks.append(Watermark(name=cast(WatermarkName, name), weights=str(place)))
        open_watermark(watermarks[-1])  # so that an error in its weights is reported once, not for every file
    every, hint = _files(paths), cache(partial(_hint, outputs))
    while some := [_read(path, watermarks, anchors) for path in islice(every, _AT_ONCE)]:
        wanted = Wanted(
            digests={one.sha256 for one in some},
            row_ids={row_id for one in some for row_id in (one.signed, one.tagged) if row_id},
            prefixes={mark.prefix for one in some if one.marks for mark in one.marks.watermarks},
        )
        records = list(look_up(outputs, wanted))
        for one in some:
            settled = one
            if one.marks:
                settled = _settled(one, records, has_anchors=bool(anchors), has_outputs=bool(outputs))
            is_lost = settled.found_by is None and not (settled.problem or settled.candidates or settled.hint)
            yield replace(settled, hint=hint()) if is_lost else settled


def _hint(outputs: Sequence[Output]) -> str | None:
    if not outputs:
        return "no output to search in; add --output OUTPUT"
    bare = [
        output.url
        for output in outputs
        if not any(
            TracedRecord(output.url, record).marks.get("watermarks")
            for table in output.records(["marks"])
            for record in table.to_pylist()
        )
    ]
    if not bare:
        return None
    return (
        f"clips of {', '.join(bare)} have no watermark, so copies without their tags cannot be found; "
        "`marks: {watermark: spread}` in a job adds one"
    )


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield files, and the images, videos and sounds in folders. Raises JobError if there are none."""
    for path in paths:
        if not os.path.exists(path):
            raise JobError(f"{path} does not exist", "check the path")
        if not path.is_dir():
            yield path
            continue
        media = [one for one in sorted(path.rglob("*")) if _is_media(one)]
        if not media:
            raise JobError(f"{path} contains no image, video or sound", "name the folder with the clips")
        yield from media


def _is_media(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        kind = file_kind(read_regular(path, 512))
    except OSError:
        return True  # reading it will show why it cannot be read
    return kind is not None and (kind.kind is not None or path.name.endswith((".png.zip", ".exr.zip")))


def _read(path: Path, watermarks: Sequence[Watermark], anchors: str | None) -> Traced:
    try:
        content = _content(path)
        beside = path.with_name(path.name + LABEL_SUFFIX)
        packet = read_regular(beside, _MAX_PACKET) if beside.is_file() else b""
    except OSError as error:
        return Traced(file=str(path), problem=f"it cannot be read: {error.strerror}")
    try:
        marks = marks_in(content, watermarks, anchors=anchors)
        marks = replace(marks, label=marks.label or label_in(packet))
        try:
            tags = read_metadata(content)
            tag = tags.pop("row_id", None) or row_id_in(tags.values())
        except StoreError:
            tag = None
        tagged = _row_id(tag or (dict(marks.label.aigc).get("ProduceID") if marks.label else None))
    except Exception as error:  # untrusted files must not stop the others
        log.debug("%s", path, exc_info=True)
        return Traced(file=str(path), problem=f"it cannot be decoded: {type(error).__name__}: {error}")
    return Traced(file=str(path), sha256=hashlib.sha256(content).hexdigest(), marks=marks, tagged=tagged)


def _content(path: Path) -> bytes:
    """Return the content of a file. Raises OSError, also if it is not a file, or too large."""
    if path.stat().st_size > MAX_CLIP_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MAX_CLIP_BYTES:,} bytes", str(path))
    return read_regular(path, MAX_CLIP_BYTES)


def _row_id(text: Any) -> str | None:
    return text if isinstance(text, str) and re.fullmatch(ROW_ID, text) else None


def _settled(
    file: Traced, records: Sequence[TracedRecord], *, has_anchors: bool, has_outputs: bool
) -> Traced:
    """Return a file with its row, by the first mark that names one; with outputs, one that they have."""
    file = replace(file, signer=_signer(file, records, has_anchors=has_anchors))
    by_row_id = {one.row_id: one for one in records}
    for one in records:
        if file.sha256 in map(one.record.get, _DIGESTS):
            return _with_row(file, "digest", one.row_id, one)
    layers: list[tuple[FoundBy, str, TracedRecord | None]] = []
    if file.signed and file.signer != "foreign":
        layers.append(("manifest", file.signed, by_row_id.get(file.signed)))
    candidates: tuple[str, ...] = ()
    for mark in file.marks.watermarks if file.marks else ():
        fitting = [one for one in by_row_id.values() if one.row_id.startswith(mark.prefix)]
        if len(fitting) > 1:
            candidates = tuple(one.row_id for one in fitting)
        elif fitting or mark.is_checked:
            layers.append(("watermark", mark.prefix, fitting[0] if fitting else None))
    if file.tagged:
        layers.append(("tags", file.tagged, by_row_id.get(file.tagged)))
    for layer, row_id, of_row in layers:
        if of_row or not has_outputs:
            return _with_row(file, layer, row_id, of_row)
    for layer, row_id, _ in layers[:1]:
        names = "name" if layer == "tags" else "names"
        forged = " (anybody can write tags)" if layer == "tags" else ""
        file = replace(file, hint=f"its {layer} {names} row {row_id}, but no output has it{forged}")
    return replace(file, candidates=candidates)


def _signer(file: Traced, records: Sequence[TracedRecord], *, has_anchors: bool) -> Signer | None:
    """Return who signed a manifest; None if there is no valid one."""
    manifest = file.marks.manifest if file.marks else None
    if manifest is None or not manifest.is_sound:
        return None
    of_row = [one for one in records if one.row_id == file.signed]
    try:
        content = _content(Path(file.file)) if of_row else b""
    except OSError:  # the file has gone since
        return "unknown"
    for certificate in {one.certificate for one in of_row if one.certificate}:
        again = read_manifest(content, own_sha256=certificate)
        if again and again.is_trusted:
            return "own"
    if of_row:
        return "foreign"
    return "trusted" if has_anchors and manifest.is_trusted else "unknown"


def _with_row(file: Traced, layer: FoundBy, row_id: str, found: TracedRecord | None) -> Traced:
    """Return a file with its row, and what has changed if it has a record."""
    if found is None:
        return replace(file, found_by=layer, row_id=row_id)
    file = replace(file, found_by=layer, row_id=found.row_id, output=found.output, record=found.record)
    changes = _changes(found, file.marks) if file.marks and layer != "digest" else ()
    return replace(file, changes=tuple(changes))


def _changes(found: TracedRecord, marks: FoundMarks) -> Iterator[str]:
    """Yield the differences from the recorded clip."""
    if found.certificate and marks.manifest is None and find_spec("c2pa"):
        yield "the signed manifest was removed"
    if found.marks.get("watermarks") and not marks.watermarks:
        yield "the watermark is not found"
    for mark in marks.watermarks:
        if not found.row_id.startswith(mark.prefix):
            yield f"its {mark.part} have the watermark of row {mark.prefix}..."
    if found.marks.get("label") and marks.label is None and found.format in LABELLED:
        yield "the label was removed"
    if marks.format and found.format not in marks.format and not found.format.endswith(".zip"):
        yield f"written as {marks.format} instead of {found.format}"
    if marks.contents is None:
        yield "it cannot be decoded"
        return
    differences = [*_size(found, marks, marks.contents), *_length(found, marks.contents)]
    yield from differences
    if not differences and marks.contents.sha256:
        same = (found.record["marked_sha256"], found.record["frames_sha256"])
        copied = "copied or encoded again" if found.format in LOSSY else "encoded again"
        yield "the frames are the same" if marks.contents.sha256 in same else copied
    elif not differences:
        yield "another file, whose content was not compared"


def _size(found: TracedRecord, marks: FoundMarks, shown: Contents) -> Iterator[str]:
    was = np.array([found.record["height"] or 0, found.record["width"] or 0])
    if shown.size is None or not was.all():
        return
    now, change = np.array(shown.size), f"{was[0]} x {was[1]} to {shown.size[0]} x {shown.size[1]}"
    scale = next((one.scale for one in marks.watermarks if one.scale), None)
    if scale is None:
        ratio = now / was
        if ratio.max() / ratio.min() > 1 + _NEAR:
            yield f"cropped or stretched, from {change}"
        elif ratio.max() != 1:
            yield f"scaled, from {change}"
        return
    left = now / scale / was  # share of the clip's height and width
    if abs(scale - 1) > _NEAR / 4:
        yield f"scaled to {scale:.0%}"
    if left.min() < 1 - _NEAR:
        yield f"cropped to {min(left[0], 1):.0%} of the height and {min(left[1], 1):.0%} of the width"


def _length(found: TracedRecord, shown: Contents) -> Iterator[str]:
    was = found.record
    if shown.num_frames and was["num_frames"] and shown.num_frames != was["num_frames"]:
        yield f"{count_text(shown.num_frames, 'frame')} instead of {was['num_frames']:,}"
    if shown.fps and was["fps"] and abs(shown.fps - was["fps"]) > 0.01 * was["fps"]:
        yield f"{shown.fps:g} fps instead of {was['fps']:g}"
    if was["audio_sha256"] and not shown.has_sound:
        yield "the sound was removed"
