"""From an output to a dataset of its clips and records elsewhere, shard by shard."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from framefleet.jobs.export.choice import SHARD_MB, SHARD_ROWS, ExportChoice, ExportFormat
from framefleet.jobs.export.clips import CLIPS_AT_ONCE, read_clips
from framefleet.jobs.export.folder_shard import FolderShard, check_folder
from framefleet.jobs.export.parquet_shard import ParquetShard
from framefleet.jobs.export.picks import picked
from framefleet.jobs.export.plan import NOTES, ExportPlan, claim_place, plan_of
from framefleet.jobs.export.selection import Piece, Selection
from framefleet.jobs.export.shard import ShardWriter, Target, feature_of
from framefleet.jobs.export.tar_shard import TarShard
from framefleet.jobs.show.standing import ExportProgress
from framefleet.jobs.show.watch import Callback, Watch, wait_for
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.damage import Damage
from framefleet.pipeline.outputs.stores.store import Store

_KINDS: dict[ExportFormat, type[ShardWriter]] = {
    "webdataset": TarShard,
    "parquet": ParquetShard,
    "hf": FolderShard,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What is there in the end, also of earlier runs. left_out: rows whose clips are damaged."""

    place: Store
    num_rows: int
    num_bytes: int
    num_shards: int
    left_out: tuple[Damage, ...] = ()


def export(
    output: str,
    to: str,
    *,
    format: ExportFormat,
    where: str | None = None,
    picks: str | Path | Collection[str] | None = None,
    columns: Sequence[str] | None = None,
    shard_rows: int = SHARD_ROWS,
    shard_mb: int = SHARD_MB,
    storage_options: Mapping[str, Any] | None = None,
    to_options: Mapping[str, Any] | None = None,
    on_progress: Callable[[ExportProgress], None] | None = None,
) -> Exported:
    """Write the clips and records of an output as a dataset for others, to a folder or a URL.

    format: webdataset (tar shards), parquet (clips in a column) or hf (what `datasets.load_dataset` opens).
    where: SQL on a record's columns, as "sharpness > 0.4". picks: row_ids, or a file of them as the gallery
    saves it. columns: of the records; None is all. to_options: of `to`, where they are others than the
    output's storage_options. The same call goes on after an interruption. Rows whose clips are damaged are
    left out, and told. Raises JobError where `to` holds something else.
    """
    options = dict(storage_options or {})
    choice = ExportChoice(
        format=format,
        where=where,
        picks=picked(picks, options),
        columns=None if columns is None else tuple(columns),
        shard_rows=shard_rows,
        shard_mb=shard_mb,
    )
    store = Store(output, options)
    return export_chosen(
        store, Store(to, options if to_options is None else to_options), choice, Callback(on_progress)
    )


def export_chosen(store: Store, place: Store, choice: ExportChoice, watch: Watch) -> Exported:
    """Do what `export` promises, telling `watch` about it."""
    _check_apart(store, place)
    wait_for(watch, "reading the records")
    selection = Selection(store, choice)
    plan = plan_of(selection)
    feature = feature_of(plan.endings)
    if choice.format == "hf":
        check_folder(plan.endings, feature)
    claim_place(place, choice, plan)
    with (
        ThreadPoolExecutor(CLIPS_AT_ONCE) as readers,
        tempfile.TemporaryDirectory(prefix="framefleet-") as scratch,
    ):
        target = Target(
            place=place, columns=selection.columns, feature=feature, scratch=Path(scratch), copiers=readers
        )
        damages = _write(store, selection, choice, plan, target, watch)
    return Exported(
        place=place,
        num_rows=plan.num_rows - len(damages),
        num_bytes=plan.num_bytes,
        num_shards=len(plan.shards),
        left_out=tuple(damages),
    )


def _check_apart(store: Store, place: Store) -> None:
    one, other = (f"{at.url_of('').rstrip('/')}/" for at in (store, place))
    if one.startswith(other) or other.startswith(one):
        raise JobError(
            f"{place.url_of('')} and the output {store.url_of('')} lie in each other",
            "choose a place of its own: what reads one would read both",
        )


def _write(
    store: Store, selection: Selection, choice: ExportChoice, plan: ExportPlan, target: Target, watch: Watch
) -> list[Damage]:
    """Write the shards that are not there yet; return what had to be left out."""
    kind = _KINDS[choice.format]
    done = _done(target, [kind.path_of(number) for number in range(len(plan.shards))])
    pace = _Pace(plan, done, watch)
    columns = (*selection.columns, *selection.captions)
    pieces = (piece for piece in selection.pieces(columns) if piece.shard not in done)
    damages: list[Damage] = []
    written = set()
    clips = read_clips(store, pieces, target.copiers)
    for number, read in groupby(clips, key=lambda pair: pair[0].shard):
        damages += _write_shard(kind, number, read, plan, target, pace)
        written.add(number)
    if len(done | written) != len(plan.shards):
        raise _changed()
    return damages


def _done(target: Target, names: Sequence[str]) -> set[int]:
    """Return which shards are there. One of which rows were left out is made again: they may be back."""
    wanting = {Path(path).stem for path in target.place.list(f"{NOTES}/left-out")}
    there = target.copiers.map(target.place.exists, names)
    return {number for number, is_there in enumerate(there) if is_there and f"{number:06}" not in wanting}


def _write_shard(
    kind: type[ShardWriter],
    number: int,
    read: Iterator[tuple[Piece, list[bytes | Damage]]],
    plan: ExportPlan,
    target: Target,
    pace: _Pace,
) -> list[Damage]:
    """Write one shard, all at once and only if it holds the rows that were planned."""
    shard: ShardWriter | None = None
    damages: list[Damage] = []
    digest = hashlib.sha256()
    for piece, found in read:
        piece.digest(digest)
        damages += [clip for clip in found if isinstance(clip, Damage)]
        clips = [clip for clip in found if isinstance(clip, bytes)]
        if clips:
            shard = kind(target, number) if shard is None else shard
            shard.add(piece.rows.filter([isinstance(clip, bytes) for clip in found]), clips)
        pace.add(len(found), sum(map(len, clips)))
    if number >= len(plan.shards) or digest.hexdigest() != plan.shards[number].sha256:
        raise _changed()
    _note(target.place, number, damages)
    if shard is not None:
        shard.finish()
    if not damages:
        target.place.delete(_note_path(number))
    return damages


def _note(place: Store, number: int, damages: Sequence[Damage]) -> None:
    if damages:
        lines = [json.dumps(asdict(damage), ensure_ascii=False) for damage in damages]
        place.write(_note_path(number), "\n".join(lines).encode() + b"\n")


def _note_path(number: int) -> str:
    return f"{NOTES}/left-out/{number:06}.jsonl"


def _changed() -> JobError:
    return JobError(
        "the chosen rows are others now than when this export began",
        "run it again when the output rests; and where must say the same of a row each time, unlike random()",
    )


class _Pace:
    """Tells how far an export is."""

    def __init__(self, plan: ExportPlan, done: set[int], watch: Watch) -> None:
        self._plan, self._watch, self._begun = plan, watch, time.monotonic()
        self._before = self._done = sum(plan.shards[number].num_rows for number in done)
        self._num_bytes = 0
        self.add(0, 0)

    def add(self, num_rows: int, num_bytes: int) -> None:
        self._done, self._num_bytes = self._done + num_rows, self._num_bytes + num_bytes
        elapsed_s = time.monotonic() - self._begun
        rate = (self._done - self._before) / elapsed_s if elapsed_s else 0.0
        self._watch.show(
            ExportProgress(
                done=self._done,
                total=self._plan.num_rows,
                bytes_per_s=self._num_bytes / elapsed_s if rate else None,
                eta_s=(self._plan.num_rows - self._done) / rate if rate else None,
            )
        )
