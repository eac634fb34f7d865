"""From a folder of images or videos to a table: one row per file, with the prompt that lies next to it.

Columns are `image` or `video`, the path below the folder; `file`, the same path, which is carried; and
`prompt` if any file has a text file of its name, as in datasets for training.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.guards.regular_file import check_regular
from framefleet.pipeline.rows.tables.formats import TO_UTF_8

_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_VIDEOS = (".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi")
_COLUMNS = dict.fromkeys(_IMAGES, "image") | dict.fromkeys(_VIDEOS, "video")
_MAX_PROMPT = 65_536  # bytes, as of a cell
_MAX_TEXT = 256 << 20  # bytes of all prompts, which are in memory


@dataclass(frozen=True, slots=True)
class ListedFolder:
    """As much of a file system as readers of a table use: it has one file, the table of a folder's files."""

    content: bytes

    def open(self, path: str, mode: str = "rb") -> io.BytesIO:
        return io.BytesIO(self.content)

    def info(self, path: str) -> dict[str, Any]:
        return {"size": len(self.content), "etag": hashlib.sha256(self.content).hexdigest()}


def media_column(path: str) -> str | None:
    """Return the column in which a file is named: image or video; None for any other file."""
    return _COLUMNS.get(PurePosixPath(path).suffix.lower())


def list_media(
    filesystem: Any, files: Sequence[str], below: Collection[str], *, folder: str, location: str
) -> ListedFolder:
    """Return the table of these images or videos, in order. below: all files of the folder. TableError."""
    columns = {media_column(path): path for path in files}
    if len(columns) > 1:
        both = " and ".join(str(path) for path in columns.values())
        raise TableError(f"images and videos in {location}: {both}", "give a folder with one kind of them")
    names = [path[len(folder.rstrip("/")) + 1 :] for path in files]
    rows = {next(iter(columns)): names, "file": names}
    texts = [str(PurePosixPath(path).with_suffix(".txt")) for path in files]
    if not (there := {*texts} & {*below}):
        return _written(rows)
    size, prompts = 0, dict[str, str]()
    for text in sorted(there):
        if isinstance(filesystem, LocalFileSystem):
            check_regular(text)
        content = filesystem.cat_file(text, 0, _MAX_PROMPT + 1)
        size += len(content)
        if len(content) > _MAX_PROMPT or size > _MAX_TEXT:
            of = f"{text} is" if len(content) > _MAX_PROMPT else f"the prompts in {location} are"
            most = _MAX_PROMPT if len(content) > _MAX_PROMPT else _MAX_TEXT
            raise TableError(f"{of} longer than {most:,} bytes", "shorten it, or write a table of the files")
        try:
            prompts[text] = content.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise TableError(f"the prompt {text} is not UTF-8", TO_UTF_8) from None
    return _written({**rows, "prompt": [prompts.get(text) for text in texts]})


def _written(rows: dict[Any, Any]) -> ListedFolder:
    sink = io.BytesIO()
    pq.write_table(pa.table({name: pa.array(cells, pa.string()) for name, cells in rows.items()}), sink)
    return ListedFolder(sink.getvalue())
