"""Finds the rows of a table that can be trained on, and says why others can't.

Every video is read and decoded once. The output keeps the results, so a resumed run reads only the table.
Each row takes about 300 bytes of memory.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from framefleet.api.clips import Inputs
from framefleet.api.errors import InputError, Problem, Refused
from framefleet.api.outputs import Output, Store
from framefleet.pipeline.model.specs.signature import InputKind
from framefleet.pipeline.rows.inputs.pictures import Described
from framefleet.pipeline.rows.inputs.survey import InputIndex
from framefleet.pipeline.rows.inputs.video_parts import as_text, split_part
from framefleet.pipeline.rows.tables.record_columns import public_cell
from framefleet.pipeline.rows.tables.row_cells import readable
from framefleet.pipeline.rows.tables.rows import InvalidRow, no_place
from framefleet.plugins.train.dataset.batches import choose_bucket
from framefleet.plugins.train.dataset.columns import REPEATS, Columns
from framefleet.plugins.train.task import NO_FRAMES, Bucket, TrainingRow

_FOLDER = "survey"
_BATCH_ROWS = 256  # read side by side; after each batch progress is reported
_MAX_WAITING, _MAX_AGE_S = 4096, 30.0  # videos that a killed survey decodes again, at most
_SCHEMA = pa.schema(
    [
        pa.field("place", pa.string(), nullable=False),  # SHA-256 of the URL, which may be a signed one
        pa.field("kind", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("width", pa.int64(), nullable=False),
        pa.field("height", pa.int64(), nullable=False),
        pa.field("num_frames", pa.int64(), nullable=False),
        pa.field("first_frame", pa.int64()),  # of a part of a video
    ]
)
# Where a video lies, its SHA-256, the first frame of the part that is meant, and the bucket that it fills.
_Located = tuple[str | None, str | None, int, Bucket]
_NO_VIDEO: _Located = (None, None, 0, NO_FRAMES)
_A = {"video": "a video", "image": "an image"}


def survey(
    columns: Columns,
    buckets: Sequence[Bucket],
    inputs: Inputs,
    *,
    store: Store,
    refused: Callable[[InvalidRow, pa.RecordBatch], None],
    checked: Callable[[int], None],
) -> Iterator[TrainingRow]:
    """Yield the rows of a table that can be trained on.

    store: the output, where what was found in videos is kept. refused: is given every other row, also as the
    table has it. checked: is called with how many rows were looked at.
    """
    with closing(_Videos(inputs, columns.kind, store)) as videos:
        for first, batch in columns.table.batches(_BATCH_ROWS):
            readable_rows = readable(batch, columns.names)
            for offset, why in readable_rows.refused.items():
                refused(InvalidRow(index=first + offset, problems=tuple(why)), batch.slice(offset, 1))
            cells = columns.videos(readable_rows.cells)
            videos.look_at([cell for cell in cells if cell is not None], buckets)
            for place, (arguments, problems) in enumerate(columns.arguments(readable_rows.cells)):
                offset = readable_rows.offsets[place]
                video = videos.find(cells[place], buckets) if columns.video else _NO_VIDEO
                if isinstance(video, Refused):
                    problems = [Problem(columns.video or "", public_cell(cells[place]), video), *problems]
                if isinstance(video, Refused) or problems:
                    row = InvalidRow(index=first + offset, problems=tuple(problems))
                    refused(row, batch.slice(offset, 1))
                else:
                    uri, sha256, first_frame, bucket = video
                    repeats = arguments.pop(REPEATS, 1)
                    yield TrainingRow(
                        index=first + offset,
                        video=uri,
                        sha256=sha256,
                        arguments=arguments,
                        bucket=bucket,
                        repeats=repeats,
                        first_frame=first_frame,
                    )
            checked(first + batch.num_rows)


class _Videos:
    """The shapes of a table's videos, read from the output if an earlier run found them out."""

    def __init__(self, inputs: Inputs, kind: InputKind, store: Store) -> None:
        self._inputs, self._kind = inputs, kind
        self._index = InputIndex(inputs)
        self._known: dict[tuple[str, InputKind], Described] = {}
        output = Output(store)
        for described in (row for table in output.tables(_FOLDER, _SCHEMA) for row in table.to_pylist()):
            place, kind = described.pop("place"), described.pop("kind")
            self._known[place, kind] = Described(**described)
        self._writer = output.writer(_FOLDER, _SCHEMA)
        self._written = time.monotonic()

    def look_at(self, cells: Sequence[Any], buckets: Sequence[Bucket]) -> None:
        """Read what is not known yet, many at a time, and keep it. What was refused may be mended by now."""
        places = dict.fromkeys(self._locate(cell) for cell in cells)
        uris = [uri for uri in places if isinstance(uri, str)]
        for uri in uris:
            recalled = self._known.pop((_place(uri), self._kind), None)
            if recalled is not None and not isinstance(choose_bucket(buckets, recalled), Refused):
                self._index.remember(uri, self._kind, recalled)
        new = [uri for uri in uris if not self._index.knows(uri, self._kind)]
        self._index.prefetch((uri, self._kind) for uri in new)
        for uri in new:
            described = self._index.find(uri, self._kind)
            if isinstance(described, Described):
                self._writer.add(None, {"place": _place(uri), "kind": self._kind, **asdict(described)})
        is_old = time.monotonic() - self._written > _MAX_AGE_S
        if is_old or self._writer.rows_waiting >= _MAX_WAITING:
            self._flush()

    def find(self, cell: Any, buckets: Sequence[Bucket]) -> _Located | Refused:
        """Return what a row is to know of its video, or what is wrong with it."""
        if cell is None:
            return Refused(reason=f"every row needs {_A[self._kind]}", fix="write its path or URL")
        uri = self._locate(cell)
        if isinstance(uri, Refused):
            return uri
        described = self._index.find(uri, self._kind)
        if isinstance(described, Refused):
            return described
        bucket = choose_bucket(buckets, described)
        if isinstance(bucket, Refused):
            return bucket
        is_part = described.first_frame is not None
        return split_part(uri)[0] if is_part else uri, described.sha256, described.first_frame or 0, bucket

    def close(self) -> None:
        self._flush()
        self._index.close()

    def _flush(self) -> None:
        self._writer.flush()
        self._written = time.monotonic()

    def _locate(self, cell: Any) -> str | Refused:
        """Return where a video lies, with the part of it that is meant."""
        cell = as_text(cell) if self._kind == "video" else cell
        if not isinstance(cell, str):
            return no_place(cell, self._kind)
        place = cell.strip()
        file = split_part(place)[0] if self._kind == "video" else place
        try:
            return self._inputs.locate(file) + place.removeprefix(file)
        except InputError as error:
            return Refused(reason=error.problem, fix=error.fix)


def _place(uri: str) -> str:
    return hashlib.sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()
