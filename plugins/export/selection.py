"""Choose records of an output, cut them into shards, and read the bytes of their clips.

Clips are read in parallel, and each is compared with its record. Near duplicates are found by perceptual
hashes of three frames each: pHash of imagehash, 64 bits of low frequencies, which survive compression, noise
and scaling.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from framefleet.api.clips import decode
from framefleet.api.commands import ClipsPace, Watch
from framefleet.api.errors import JobError, StoreError, command, count_text, names_text, not_ours
from framefleet.api.outputs import (
    EXTRAS,
    MAX_CLIP_BYTES,
    RECORD_FIELDS,
    RECORDS,
    ROWS,
    Output,
    check_where,
    columns_in,
    fix_of_missing,
    kept_in,
    told_arguments,
)
from framefleet.api.texts import canonical_json
from framefleet.pipeline.plugin import section_adding
from framefleet.pipeline.rows.tables.row_ids import ids_of
from framefleet.plugins.export.choice import ALL_COLUMNS, ExportChoice
from framefleet.plugins.export.labels import PROMPT_COLUMN, STARS, Labels, prompt_of, read_template
from framefleet.plugins.keep.damage import Damage
from framefleet.plugins.keep.record_law import LAW_COLUMNS, RecordLaw, against_clip
from framefleet.plugins.picks import chosen_records, with_labels

# framefleet's columns and pipeline arguments that trainers need; others say how and where a clip was made.
_LEAN = frozenset(
    [
        "row_id",
        "prompt",
        "seed",
        "height",
        "width",
        "num_frames",
        "fps",
        "duration_s",
        "license",
        "model_name",
    ]
)

# With the seed, everything that determines a clip. Readers of an evaluation want to know it.
_SETTINGS = ("arguments", "scheduler", "recipe", "model", "model_digest", "numerics")

_DECIDING = frozenset({"scheduler", "recipe", "model_digest"})  # besides arguments and seed

# Place, row and file content of a clip.
CLIP_COLUMNS = (
    *("row_id", "uri", "path", "bytes", "media_sha256"),
    *("height", "width", "num_frames", "fps", "numerics"),
)
_EXTRAS = ("extra_outputs", "extra_outputs_path", "extra_outputs_sha256")
_MAX_EXTRAS_BYTES = 4 << 30  # per row; fifty steps of a long clip take one gigabyte
_LICENSED = ["model", "license"]
# Columns of the second clip, by the columns of the first.
_DERIVED = {"path": "derived_path", "media_sha256": "derived_sha256"} | {
    name: f"derived_{name}" for name in ("bytes", "height", "width", "num_frames", "fps")
}
_PIECE_ROWS, _PIECE_BYTES = 256, 64 << 20  # a piece is read at once, and a few are in memory; one row group

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
CLIPS_AT_ONCE = 16  # a store answers in tens of milliseconds, and hashing gives way to other threads
_PIECES_AHEAD = 1  # read the next piece while one is written


def split_of(prompt: str, validation: float) -> Split:
    """Return the split for all rows with this prompt. It stays the same when the output grows.

    validation: the expected share of prompts, 0 to 1.
    """
    number = int.from_bytes(hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()[:8])
    return "validation" if number < validation * 2**64 else "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some rows of a shard, in order. split: None if the export has no splits."""

    shard: int
    split: Split | None
    rows: pa.Table

    def digest(self, digest: hashlib._Hash) -> None:
        """Add the identity of these clips to a digest."""
        for row_id, sha256 in zip(
            self.rows["row_id"].to_pylist(), self.rows["media_sha256"].to_pylist(), strict=True
        ):
            digest.update(f"{row_id} {sha256}\n".encode())


class Selection:
    """The chosen records of an output, in the order in which they were committed.

    output: as it was when the export began.
    """

    def __init__(self, output: Output, choice: ExportChoice) -> None:
        """Raises JobError for unknown columns, invalid conditions, and an output without records."""
        self._output, self._choice = output, choice
        record_schema = output.schema()
        if not output.store.list(RECORDS):
            raise output.no_records()
        self._conditioned: Sequence[str] = ()  # columns in the condition
        if choice.where is not None:
            labelled = with_labels(record_schema, choice.picks or {})
            check_where(labelled, choice.where)
            self._conditioned = columns_in(choice.where, record_schema)
            labels = {*columns_in(choice.where, labelled)} - {*record_schema.names}
            if labels and choice.picks is None:
                problem = f"where: only picks have {names_text(sorted(labels))}"
                raise JobError(problem, "add --picks with the file that the gallery saved")
        self._labels = Labels(
            picks=choice.picks or {},
            template=None if choice.caption is None else read_template(choice.caption, record_schema.names),
        )
        if choice.columns is None:
            repeated = {self._labels.repeated} - {PROMPT_COLUMN}
            wanted = tuple(name for name in lean_columns(output) if name not in repeated)
            wanted += _SETTINGS if choice.format == "vbench" else ()
        else:
            wanted = tuple(record_schema.names) if choice.columns == ALL_COLUMNS else choice.columns
        for name in wanted:
            if name not in record_schema.names and name not in self._labels.names:
                raise JobError(f"columns: there is no {name!r}", fix_of_missing(name, record_schema.names))
        names = [name for name in dict.fromkeys(("row_id", *wanted)) if name in record_schema.names]
        self.schema = pa.schema([record_schema.field(name) for name in names])
        self.added = self._labels.names
        self.nameable = (*record_schema.names, *self.added)  # columns that file names may use
        self.columns = (*map(self._labels.renamed, names), *self.added)
        self.left_out = tuple(name for name in record_schema.names if name not in names)
        self._texts = (PROMPT_COLUMN,) if PROMPT_COLUMN in record_schema.names else ()
        self._law = RecordLaw.of(output.store, record_schema)
        self._contradictions: dict[str, str] = {}  # of rows read with all columns, by row_id
        self._duplicates: pa.Array = pa.array([], pa.string())
        self._only: pa.Array | None = None
        self._extras_bytes: Mapping[str, int] | None = None  # by row_id; None: extras are not exported
        self._in_table = _ids_in_table(output) if choice.in_table else None

    @property
    def fields(self) -> list[pa.Field]:
        added = (pa.field(name, pa.int64() if name == STARS else pa.string()) for name in self.added)
        columns = zip(self.schema, self.columns, strict=False)
        return [*(field.with_name(name) for field, name in columns), *added]

    def licensed(self) -> dict[tuple[str, str], None]:
        """Return the (model, license) pairs of the exported rows."""
        licensed: dict[tuple[str, str], None] = {}
        for table in self._tables(None, False, _LICENSED):
            for row in table.select(_LICENSED).group_by(_LICENSED).aggregate([]).to_pylist():
                licensed[row["model"], row["license"] or "unknown"] = None
        return licensed

    def nothing_chosen(self) -> JobError:
        present = " whose row is in its table" * self._choice.in_table
        or_all = "; or leave out in_table" * self._choice.in_table
        if self._choice.picks is None or self._choice.where is not None:
            fix = "loosen --where, or choose other rows"
            for section in filter(None, map(section_adding, self._conditioned)):
                fix = f"{command('status', self._output.url)} shows the progress of `{section}`"
            if self._choice.file != "clip":
                fix += "; only rows of a job with `post:` have a second clip"
            return JobError("no rows are chosen", f"{fix}{or_all}")
        inner = self._output.inner.items()
        fix = "".join(f"picks of {name} belong to {one.url}; " for name, one in inner)
        problem = f"none of the picks is a clip of {self._output.url}{present}"
        return JobError(problem, f"{fix}pick clips in this output's own gallery{or_all}")

    def leave_out(self, row_ids: Collection[str]) -> None:
        self._duplicates = pa.array(row_ids, pa.string())

    def keep_only(self, row_ids: Iterable[str]) -> None:
        self._only = pa.array(row_ids, pa.string())

    def with_extras(self) -> None:
        """Choose only rows with stored latents, and read their arrays along with their clips."""
        sizes = self._output.store.details(EXTRAS).items()
        self._extras_bytes = {PurePosixPath(path).name[:32]: stored.size for path, stored in sizes}

    def pieces(self, *, is_whole: bool = False) -> Iterator[Piece]:
        """Yield the chosen rows with `CLIP_COLUMNS`. is_whole: also with `columns` and prompts."""
        next_shard = 0
        for split in (None,) if self._choice.validation is None else SPLITS:
            for piece in self._cut(self._tables(split, is_whole), split, next_shard):
                next_shard = piece.shard + 1
                yield piece

    def rows(self, *columns: str) -> Iterator[pa.Table]:
        """Yield the chosen rows with these columns, `CLIP_COLUMNS`, `columns` and prompts."""
        yield from self._tables(None, True, columns)

    def read_clips(
        self, pieces: Iterable[Piece], readers: ThreadPoolExecutor
    ) -> Iterator[tuple[Piece, list[RowFiles | Damage]]]:
        """Yield each piece with its clips, or with the damage of a clip that differs from its record."""
        waiting: deque[tuple[Piece, list[Future[RowFiles | Damage]]]] = deque()
        columns = [*CLIP_COLUMNS, *(() if self._extras_bytes is None else _EXTRAS)]
        for piece in pieces:
            rows = piece.rows.select(columns).to_pylist()
            waiting.append((piece, [readers.submit(self._files, row) for row in rows]))
            if len(waiting) > _PIECES_AHEAD:
                first, reads = waiting.popleft()
                yield first, [read.result() for read in reads]
        for piece, reads in waiting:
            yield piece, [read.result() for read in reads]

    def _files(self, record: dict[str, Any]) -> RowFiles | Damage:
        row_id, contents = record["row_id"], list[bytes]()
        for path, content in self._output.files(record):
            if not isinstance(content, bytes):
                return Damage(kind=content, path=path, row_id=row_id)
            contents.append(content)
        reason = self._contradictions.get(row_id) or next(against_clip(record, contents[0]), None)
        if reason:
            return Damage(kind="record", path=record["path"], row_id=row_id, reason=reason)
        return contents

    def _tables(self, split: Split | None, is_whole: bool, more: Sequence[str] = ()) -> Iterator[pa.Table]:
        whole = (*self.schema.names, *self._labels.caption_columns) if is_whole else ()
        texts = self._texts if is_whole or split else ()
        extras = () if self._extras_bytes is None else _EXTRAS
        names = dict.fromkeys((*CLIP_COLUMNS, *extras, *more, *texts, *whole))
        others = {name: other for name, other in _DERIVED.items() if name in names}
        if self._choice.file == "clip":
            others = {}
        read = dict.fromkeys((*names, *others.values(), *(LAW_COLUMNS if is_whole else ())))
        choice = self._choice
        for table in chosen_records(self._output, read, choice.where, choice.picks):
            rows = table.filter(pc.invert(pc.is_in(table["row_id"], self._duplicates)))
            if self._only is not None:
                rows = rows.filter(pc.is_in(rows["row_id"], self._only))
            if extras:
                files = zip(*(rows[name].to_pylist() for name in ("extra_outputs", _EXTRAS[-1])), strict=True)
                are_kept = [bool(sha256 and kept_in(text).latents) for text, sha256 in files]
                rows = rows.filter(pa.array(are_kept, pa.bool_()))
            if self._in_table is not None:
                ids = _bytes_of(rows)
                places = np.searchsorted(self._in_table, ids)
                rows = rows.filter(self._in_table[np.minimum(places, len(self._in_table) - 1)] == ids)
            if split is not None and self._choice.validation is not None:
                # Rows without a prompt are split one by one.
                texts_of = rows.select(["row_id", *self._texts]).to_pylist()
                prompts = [prompt_of(row) or row["row_id"] for row in texts_of]
                are_of_split = [split_of(one, self._choice.validation) == split for one in prompts]
                rows = rows.filter(pa.array(are_of_split, pa.bool_()))
            if is_whole:
                self._contradictions |= self._law.contradictions(rows)
            if others:
                rows = rows.filter(pc.is_valid(rows["derived_sha256"]))
                for name, other in others.items():  # columns of the second file take the names of the first
                    rows = rows.set_column(rows.column_names.index(name), name, rows[other])
            rows = rows.select(list(names))
            yield self._labels.add_to(rows) if is_whole else rows

    def _cut(self, tables: Iterator[pa.Table], split: Split | None, shard: int) -> Iterator[Piece]:
        """Yield pieces that do not cross shards. They depend only on rows and bytes, so never change."""
        num_rows = num_bytes = 0
        for table in tables:
            start = in_piece = 0
            sizes = table["bytes"].to_pylist()
            row_ids = table["row_id"].to_pylist()
            for end, (size, row_id) in enumerate(zip(sizes, row_ids, strict=True)):
                arrays = (self._extras_bytes or {}).get(row_id, 0)
                if not (0 <= size <= MAX_CLIP_BYTES and arrays <= _MAX_EXTRAS_BYTES):
                    raise not_ours(
                        self._output.store.url_of(RECORDS),
                        f"the clip of {row_id} has {count_text(size + arrays, 'byte')}",
                        f"clips of up to {MAX_CLIP_BYTES:,} bytes can be exported; leave it out with --where",
                    )
                size += arrays
                is_full = num_rows == self._choice.shard_rows or (
                    num_rows and num_bytes + size > self._choice.shard_mb * 1_000_000
                )
                if end > start and (is_full or end - start == _PIECE_ROWS or in_piece + size > _PIECE_BYTES):
                    yield Piece(shard=shard, split=split, rows=table.slice(start, end - start))
                    start, in_piece = end, 0
                if is_full:
                    shard, num_rows, num_bytes = shard + 1, 0, 0
                num_rows, num_bytes, in_piece = num_rows + 1, num_bytes + size, in_piece + size
            if start < len(sizes):
                yield Piece(shard=shard, split=split, rows=table.slice(start))


def _ids_in_table(output: Output) -> npt.NDArray[np.bytes_]:
    """Return the sorted row_ids of the table as last rendered, 16 bytes each."""
    ids = [_bytes_of(rows) for rows in output.rows(["row_id"])]
    if not any(map(len, ids)):
        problem = f"{output.store.url_of(ROWS)} has no rows: the table was not recorded"
        raise JobError(problem, "leave out in_table")
    return np.sort(np.concatenate(ids))


def _bytes_of(rows: pa.Table) -> npt.NDArray[np.bytes_]:
    return ids_of(rows["row_id"]).astype(">u8").view("S16")[:, 0]


def lean_columns(output: Output) -> tuple[str, ...]:
    """Return the columns about the clip itself: prompt, seed, size, scores, and the user's table columns.

    Of framefleet's columns and the pipeline's arguments, only `_LEAN`, so no places of models and no names of
    machines, and those that differ between rows, e.g. swept ones. Columns without values are left out. Reads
    the records once.
    """
    names = output.schema().names
    deciding = [name for name in names if name in _DECIDING]
    maybe = [name for name in names if name not in RECORD_FIELDS.names or name in _LEAN or name in deciding]
    filled: set[str] = set()
    arguments, others = _Values(), _Values()
    for table in output.records([*maybe, "arguments"]):
        filled |= {name for name in maybe if table[name].null_count < len(table)}
        for text in table["arguments"].unique().to_pylist():
            arguments.add(told_arguments({"arguments": text}))
        for row in table.select(deciding).group_by(deciding).aggregate([]).to_pylist():
            others.add(row)
    wanted = _LEAN | arguments.varying | others.varying
    own = arguments.first.keys() | {*deciding}
    chosen = tuple(name for name in maybe if name in filled and (name in wanted or name not in own))
    # Lists and mappings do not have a column.
    return (*chosen, "arguments") if arguments.varying - {*names} else chosen


class _Values:
    """Finds the keys whose values differ between mappings, in constant memory."""

    def __init__(self) -> None:
        self.first: dict[str, str] = {}
        self.varying: set[str] = set()
        self._is_empty = True

    def add(self, values: Mapping[str, Any]) -> None:
        if not self._is_empty:
            self.varying |= values.keys() ^ self.first.keys()
        for name in values.keys() - self.varying:
            text = canonical_json(values[name])
            if self.first.setdefault(name, text) != text:
                self.varying.add(name)
        self.first |= dict.fromkeys(self.varying - self.first.keys(), "")
        self._is_empty = False


RowFiles: TypeAlias = Sequence[bytes]  # contents of a row's clip and its other files
Hashes: TypeAlias = npt.NDArray[np.uint64]  # (3,): of the first, middle and last frame


@dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicate:
    """A row that looks like the earlier row `kept`. distance: number of bits that differ."""

    row_id: str
    kept: str
    distance: int


def find_near_duplicates(
    selection: Selection, distance: int, watch: Watch
) -> tuple[list[NearDuplicate], int]:
    """Return the rows whose hashes all differ from an earlier row's in at most `distance` bits.

    Also returns the number of clips that could not be compared: sound only, damaged, or not decodable. Time
    grows with the square of the number of clips.
    """
    total = sum(len(piece.rows) for piece in selection.pieces())
    pace = ClipsPace("compared", total=total, watch=watch)
    hashes_of_unique, unique_ids = np.empty((total, 3), np.uint64), list[str]()
    duplicates: list[NearDuplicate] = []
    num_without_frames = 0
    with ThreadPoolExecutor(CLIPS_AT_ONCE) as readers, ThreadPoolExecutor(os.cpu_count() or 1) as decoders:
        for piece, clips in selection.read_clips(selection.pieces(), readers):
            row_ids = piece.rows["row_id"].to_pylist()
            for row_id, files, hashes in zip(row_ids, clips, decoders.map(_hashes, clips), strict=True):
                pace.add(1, 0 if isinstance(files, Damage) else len(files[0]))
                if hashes is None:
                    num_without_frames += 1
                    continue
                if unique_ids:
                    distances = np.bitwise_count(hashes_of_unique[: len(unique_ids)] ^ hashes).max(axis=1)
                    near = int(distances.argmin())
                    if distances[near] <= distance:
                        bits = int(distances[near])
                        duplicates.append(NearDuplicate(row_id=row_id, kept=unique_ids[near], distance=bits))
                        continue
                hashes_of_unique[len(unique_ids)] = hashes
                unique_ids.append(row_id)
    return duplicates, num_without_frames


def _hashes(files: RowFiles | Damage) -> Hashes | None:
    import imagehash  # SciPy and PyWavelets take a second

    if isinstance(files, Damage):
        return None
    try:
        frames = decode(files[0])
    except StoreError:  # sound only, or bytes that are not a clip
        return None
    chosen = [frames[number] for number in (0, len(frames) // 2, -1)]
    bits = [np.packbits(imagehash.phash(Image.fromarray(frame)).hash) for frame in chosen]
    return np.stack(bits).view(np.uint64).reshape(3)
