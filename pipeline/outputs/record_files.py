"""Which files a record names, whether they are as it says, and what is in them. It may be anybody's."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from framefleet.pipeline.errors import JobError, NoFile, StoreError, not_ours
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.outputs.layout import DERIVED, EXTRAS, RECORDS, recorded_path, row_named_by
from framefleet.pipeline.outputs.media.media import decode
from framefleet.pipeline.outputs.parts.part_file import is_unreadable
from framefleet.pipeline.outputs.stores.store import Store

FRAMES_OF = ("row_id", "uri", "path", "bytes", "media_sha256")  # what `recorded_frames` asks of a record
MAX_CLIP_BYTES = 1 << 30  # of a clip that is read whole
_AT_ONCE_BYTES = 64 << 20  # a larger file goes by a temporary one: several are read side by side

Unsound = Literal["missing", "size", "bytes", "unreadable"]
FileState = Literal["sound"] | Unsound
HOW: Mapping[Unsound, str] = {
    "missing": "it is gone",
    "size": "it has another size",
    "bytes": "it has other bytes",
    "unreadable": "it cannot be read",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFile:
    path: str
    sha256: str
    size: int | None  # None: the record does not say


def recorded_clip(record: Mapping[str, Any], where: str = RECORDS) -> RecordedFile:
    """Return a record's clip. Raises JobError for a path or size that no clip of this row has."""
    path = recorded_path(record, where)
    if record["bytes"] < 0:
        raise not_ours(where, f"the clip of {record['row_id']} has {record['bytes']:,} bytes")
    return RecordedFile(path=path, sha256=record["media_sha256"], size=record["bytes"])


def recorded_extras(record: Mapping[str, Any]) -> RecordedFile | None:
    """Return the file of arrays next to a clip, if any. Raises as `recorded_clip` does."""
    return _second_file(record, EXTRAS, "extra_outputs", "the arrays")


def recorded_derived(record: Mapping[str, Any]) -> RecordedFile | None:
    """Return the second clip that a step made from a clip, if any. Raises as `recorded_clip` does."""
    return _second_file(record, DERIVED, "derived", "the derived clip")


def _second_file(record: Mapping[str, Any], folder: str, columns: str, what: str) -> RecordedFile | None:
    """columns: how the names of its columns begin."""
    sha256, path = record.get(f"{columns}_sha256"), record.get(f"{columns}_path") or ""
    if sha256 is None:
        return None
    if not path.startswith(f"{folder}/") or row_named_by(path) != record["row_id"]:
        raise not_ours(RECORDS, f"the path of {what} of {record['row_id']} is {path!r}")
    return RecordedFile(path=path, sha256=sha256, size=record.get(f"{columns}_bytes"))


def file_state(store: Store, file: RecordedFile) -> FileState:
    """Read a file, and return how it is; of one of another size no more than is needed to see it."""
    if file.size is not None and file.size <= _AT_ONCE_BYTES:
        content = sound_content(store, file)
        return "sound" if isinstance(content, bytes) else content
    try:
        if file.size not in (None, store.stat(file.path).size):
            return "size"
        with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
            copy = Path(folder, "file")
            store.download(file.path, copy)
            with open(copy, "rb") as opened:
                is_same = hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
    except (FileNotFoundError, StoreError) as error:
        return _why_not(store, error)
    return "sound" if is_same else "bytes"


def sound_content(store: Store, file: RecordedFile) -> bytes | Unsound:
    """Return the bytes of a file that is as its record says; else how it is."""
    try:
        content = store.read(file.path, None if file.size is None else file.size + 1)
    except (FileNotFoundError, StoreError) as error:
        return _why_not(store, error)
    if file.size not in (None, len(content)):
        return "size"
    return content if hashlib.sha256(content).hexdigest() == file.sha256 else "bytes"


def _why_not(store: Store, error: FileNotFoundError | StoreError) -> Unsound:
    """Return why a file was not read. Raises the error where no file can be read."""
    if isinstance(error, FileNotFoundError | NoFile):
        return "missing"
    if not is_unreadable(store, error):
        raise error
    return "unreadable"


def recorded_frames(store: Store, record: Mapping[str, Any]) -> Frames:
    """Return uint8 RGB (T, H, W, 3). Raises StoreError when the clip is gone, JobError when it is another."""
    file = recorded_clip(record, store.url_of(RECORDS))
    where = store.url_of(file.path)
    if record["bytes"] > MAX_CLIP_BYTES:
        raise JobError(f"{where} has more than {MAX_CLIP_BYTES:,} bytes", "leave it out, by a condition")
    try:
        return decode(_content(store, file))
    except StoreError as error:
        raise JobError(f"{where}: {error.problem}", error.fix) from error


def recorded_tensors(store: Store, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arrays next to a clip, by name; {} without any. Raises as `recorded_frames` does."""
    file = recorded_extras(record)
    if file is None:
        return {}
    from safetensors.torch import load  # imports torch

    return load(_content(store, file))


def _content(store: Store, file: RecordedFile) -> bytes:
    where, content = store.url_of(file.path), sound_content(store, file)
    if content == "missing":
        raise StoreError(f"{where} is gone, but has a record", "put it back, or choose another output")
    if not isinstance(content, bytes):
        problem = f"{where} is not what was committed: {HOW[content]}"
        raise JobError(problem, "put it back, or run `framefleet repair`")
    return content
