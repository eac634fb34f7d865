"""From files, whoever made them, to the marks in each and the row that it came from."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from framefleet.jobs.keep.trace.changes import changes_of
from framefleet.jobs.keep.trace.lookup import TracedRecord, Wanted, look_up, open_outputs
from framefleet.pipeline.errors import JobError, StoreError
from framefleet.pipeline.outputs.marks.label import label_in
from framefleet.pipeline.outputs.marks.manifest_reader import read_manifest
from framefleet.pipeline.outputs.marks.settings import Watermark
from framefleet.pipeline.outputs.marks.signing import read_pem
from framefleet.pipeline.outputs.media.clip_names import LABEL_SUFFIX
from framefleet.pipeline.outputs.media.media import read_metadata
from framefleet.pipeline.outputs.output import Output
from framefleet.pipeline.outputs.parts.records import ROW_ID
from framefleet.pipeline.outputs.record_files import MAX_CLIP_BYTES
from framefleet.pipeline.rows.inputs.marks import SPREAD, FoundMarks, marks_in
from framefleet.pipeline.rows.inputs.video_frames import file_kind

FoundBy = Literal["digest", "manifest", "watermark", "tags"]
# own: the certificate of the output that has the row. foreign: the manifest names a row of an output, and
# another certificate than its. trusted: one of those given. unknown: none was asked about.
Signer = Literal["own", "foreign", "trusted", "unknown"]
_AT_ONCE = 64  # files for which outputs are read once
_ROW_ID = re.compile(ROW_ID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """What is known of a file.

    found_by: the layer that names its row; None: none does. row_id: of the row, or its first digits where
    only a watermark names it. record: of the row, in an output; None: none was given, or none has it.
    candidates: rows that a short watermark may mean. signer: who stands behind the manifest. changes: since
    it was stored. problem: why it could not be read.
    """

    file: str
    sha256: str = ""
    found_by: FoundBy | None = None
    row_id: str | None = None
    output: str | None = None
    record: Mapping[str, Any] | None = None
    candidates: tuple[str, ...] = ()
    marks: FoundMarks | None = None
    signer: Signer | None = None
    changes: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    path: Path
    sha256: str
    marks: FoundMarks
    tagged: str | None  # the row_id that unsigned tags or a label name

    @property
    def signed(self) -> str | None:
        """The row_id that a manifest names, unless it was altered."""
        manifest = self.marks.manifest
        row_id = manifest.clip.get("row_id") if manifest and manifest.state in ("intact", "changed") else None
        return row_id if isinstance(row_id, str) and _ROW_ID.fullmatch(row_id) else None


def trace(
    files: str | Path | Iterable[str | Path],
    *,
    outputs: str | Path | Iterable[str | Path] = (),
    trust: str | Path | None = None,
    watermarks: Mapping[str, str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> list[Traced]:
    """Return the marks of files and the rows that they came from.

    files: paths; of a folder all images, videos and sounds in it. outputs: where to look for records, or text
    files with one output per line. trust: a file of certificates in PEM; who signs with one issued by these
    is trusted. watermarks: weights by name, as {"videoseal": "/models/videoseal.pth"}; spread needs none.
    Raises JobError for what cannot be opened.
    """
    given = [files] if isinstance(files, str | Path) else list(files)
    places = [outputs] if isinstance(outputs, str | Path) else list(outputs)
    return list(
        trace_files(
            [Path(one) for one in given],
            open_outputs([str(place) for place in places], storage_options),
            anchors=None if trust is None else anchors_of(str(trust)),
            watermarks=watermarks_of(watermarks or {}),
        )
    )


def anchors_of(path: str) -> str:
    """Return a trust list. Raises JobError where there is none."""
    return read_pem("--trust", path).decode("utf-8", "replace")


def watermarks_of(weights: Mapping[str, str]) -> tuple[Watermark, ...]:
    """Return the watermarks to look for. Raises JobError for names that are none."""
    known = ("videoseal", "audioseal", "trustmark")
    for name in weights:
        if name not in known:
            raise JobError(
                f"--watermark {name}: there is no such watermark", f"use one of {', '.join(known)}"
            )
    return (SPREAD, *(Watermark(name=name, weights=place) for name, place in weights.items()))  # type: ignore[arg-type]


def trace_files(
    paths: Sequence[Path],
    outputs: Sequence[Output],
    *,
    anchors: str | None = None,
    watermarks: Sequence[Watermark] = (SPREAD,),
) -> Iterator[Traced]:
    """Yield what is known of each file, in their order."""
    if find_spec("c2pa") is None:
        raise JobError("trace needs c2pa-python, to read manifests", "pip install 'framefleet[c2pa]'")
    every = _files(paths)
    while some := list(islice(every, _AT_ONCE)):
        read = [_read(path, watermarks, anchors) for path in some]
        files = [one for one in read if isinstance(one, _File)]
        records = list(look_up(outputs, _wanted(files))) if outputs else []
        for one in read:
            yield one if isinstance(one, Traced) else _settled(one, records, anchors)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield files, and the images, videos and sounds of folders. Raises JobError where there is nothing."""
    for path in paths:
        if path.is_dir():
            inner = (Path(folder, name) for folder, _, names in os.walk(path) for name in sorted(names))
            yield from (one for one in inner if _is_media(one))
        elif path.exists():
            yield path
        else:
            raise JobError(f"{path} does not exist", "check the path")


def _is_media(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            found = file_kind(file.read(512))
    except OSError:
        return False
    return found is not None and (found.kind is not None or path.name.endswith((".png.zip", ".exr.zip")))


def _read(path: Path, watermarks: Sequence[Watermark], anchors: str | None) -> _File | Traced:
    try:
        if path.stat().st_size > MAX_CLIP_BYTES:
            return Traced(file=str(path), problem=f"it has more than {MAX_CLIP_BYTES:,} bytes")
        content = path.read_bytes()
        beside = path.with_name(path.name + LABEL_SUFFIX)
        label = label_in(beside.read_bytes()) if beside.is_file() else None
    except OSError as error:
        return Traced(file=str(path), problem=f"it cannot be read: {error.strerror}")
    marks = marks_in(content, watermarks, anchors=anchors)
    marks = replace(marks, label=marks.label or label)
    return _File(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        marks=marks,
        tagged=_tagged(content, marks),
    )


def _tagged(content: bytes, marks: FoundMarks) -> str | None:
    """Return the row_id that anybody may have written into a file."""
    try:
        row_id = read_metadata(content).get("row_id")
    except StoreError:
        row_id = None
    row_id = row_id or (dict(marks.label.aigc).get("ProduceID") if marks.label else None)
    return row_id if row_id and _ROW_ID.fullmatch(row_id) else None


def _wanted(files: Sequence[_File]) -> Wanted:
    return Wanted(
        digests={one.sha256 for one in files},
        row_ids={row_id for one in files for row_id in (one.signed, one.tagged) if row_id},
        prefixes={found.prefix for one in files for found in one.marks.watermarks},
    )


def _settled(file: _File, records: Sequence[TracedRecord], anchors: str | None) -> Traced:
    """Return what a file is by the first layer that names its row."""
    known = Traced(
        file=str(file.path),
        sha256=file.sha256,
        marks=file.marks,
        signer=_signer(file, records, anchors),
    )
    for one in records:
        if one.record["media_sha256"] == file.sha256:
            return _of(replace(known, found_by="digest"), one)
    named = {one.record["row_id"]: one for one in records}
    if file.signed and known.signer != "foreign":
        return _by("manifest", file.signed, known, named.get(file.signed))
    for mark in file.marks.watermarks:
        fitting = [one for row_id, one in named.items() if row_id.startswith(mark.prefix)]
        if len(fitting) > 1:
            known = replace(known, candidates=tuple(one.record["row_id"] for one in fitting))
        elif fitting or mark.is_checked:
            return _by("watermark", mark.prefix, known, fitting[0] if fitting else None)
    if file.tagged in named or (file.tagged and not records):
        return _by("tags", file.tagged or "", known, named.get(file.tagged or ""))
    return known


def _signer(file: _File, records: Sequence[TracedRecord], anchors: str | None) -> Signer | None:
    """Return who stands behind a manifest; None where there is none that holds."""
    manifest = file.marks.manifest
    if manifest is None or manifest.state not in ("intact", "changed"):
        return None
    of_row = [one for one in records if one.record["row_id"] == file.signed]
    for certificate in {sha256 for one in of_row for sha256 in one.certificates}:
        again = read_manifest(file.path.read_bytes(), own_sha256=certificate)
        if again and again.is_trusted:
            return "own"
    if of_row:
        return "foreign"
    return "trusted" if anchors and manifest.is_trusted else "unknown"


def _by(layer: FoundBy, row_id: str, known: Traced, found: TracedRecord | None) -> Traced:
    """Return it as found by a layer, with its record, if there is one, and what was changed."""
    known = replace(known, found_by=layer, row_id=row_id)
    if found is None:
        return known
    assert known.marks is not None
    return replace(_of(known, found), changes=tuple(changes_of(found, known.marks)))


def _of(known: Traced, found: TracedRecord) -> Traced:
    return replace(known, row_id=found.record["row_id"], output=found.output, record=found.record)
