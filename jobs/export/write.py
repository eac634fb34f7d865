"""From pieces of a selection to the shards that are not there yet, each whole and as it was planned."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from framefleet.jobs.export.choice import ExportChoice, ExportFormat
from framefleet.jobs.export.clips import read_clips
from framefleet.jobs.export.folder_shard import FolderShard
from framefleet.jobs.export.parquet_shard import ParquetShard
from framefleet.jobs.export.plan import NOTES, ExportPlan
from framefleet.jobs.export.selection import Piece, Selection
from framefleet.jobs.export.shard import ShardWriter, Target
from framefleet.jobs.export.tar_shard import TarShard
from framefleet.jobs.show.clips_pace import ClipsPace
from framefleet.jobs.show.watch import Watch
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.damage import Damage
from framefleet.pipeline.outputs.stores.store import Store

_KINDS: dict[ExportFormat, type[ShardWriter]] = {
    "webdataset": TarShard,
    "parquet": ParquetShard,
    "hf": FolderShard,
}


def write_shards(
    store: Store, selection: Selection, choice: ExportChoice, plan: ExportPlan, target: Target, watch: Watch
) -> dict[int, list[Damage]]:
    """Write the shards that are not there yet; return what had to be left out, by the number of the shard."""
    kind = _KINDS[choice.format]
    done = _done(target, [kind.path_of(shard.name) for shard in plan.shards])
    before = sum(plan.shards[number].num_rows for number in done)
    pace = ClipsPace("exported", total=plan.num_rows, before=before, watch=watch)
    pieces = (piece for piece in selection.pieces(is_whole=True) if piece.shard not in done)
    damages: dict[int, list[Damage]] = {}
    clips = read_clips(store, pieces, target.copiers)
    for number, read in groupby(clips, key=lambda pair: pair[0].shard):
        damages[number] = _write_shard(kind, number, read, plan, target, pace)
    if len(done | damages.keys()) != len(plan.shards):
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
    pace: ClipsPace,
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
            shard = kind(target, plan.shards[number].name) if shard is None else shard
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
