"""From an output to a dataset of its clips and records elsewhere, shard by shard."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framefleet.jobs.export.choice import SHARD_MB, SHARD_ROWS, ExportChoice, ExportFormat
from framefleet.jobs.export.clips import CLIPS_AT_ONCE
from framefleet.jobs.export.folder_shard import check_folder
from framefleet.jobs.export.picks import picked
from framefleet.jobs.export.plan import claim_place, parts_to_export, plan_of
from framefleet.jobs.export.selection import Selection
from framefleet.jobs.export.shard import Target, feature_of
from framefleet.jobs.export.write import write_shards
from framefleet.jobs.show.standing import ClipsProgress
from framefleet.jobs.show.watch import Callback, Watch, wait_for
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.damage import Damage
from framefleet.pipeline.outputs.parts.seals import live_parts
from framefleet.pipeline.outputs.stores.store import Store, sweep_beside


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What is there in the end, also of earlier runs.

    left_out: rows whose clips are damaged. num_newer_parts: of records, which came after the export began.
    """

    place: Store
    num_rows: int
    num_bytes: int
    num_shards: int
    left_out: tuple[Damage, ...] = ()
    num_newer_parts: int = 0


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
    on_progress: Callable[[ClipsProgress], None] | None = None,
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
    parts = parts_to_export(store, place)
    if num_newer := len(live_parts(store)) - len(parts):
        watch.say(
            f"note: {num_newer:,} parts of records are newer than this export, and left out; "
            "export to another place to have them"
        )
    selection = Selection(store, choice, parts)
    plan = plan_of(selection)
    feature = feature_of(plan.endings)
    if choice.format == "hf":
        check_folder(plan.endings, feature, selection.schema)
    claim_place(place, choice, plan, parts)
    sweep_beside(place)
    with (
        ThreadPoolExecutor(CLIPS_AT_ONCE) as readers,
        tempfile.TemporaryDirectory(prefix="framefleet-") as scratch,
    ):
        target = Target(
            place=place, columns=selection.columns, feature=feature, scratch=Path(scratch), copiers=readers
        )
        damages = write_shards(store, selection, choice, plan, target, watch)
    return Exported(
        place=place,
        num_rows=plan.num_rows - len(damages),
        num_bytes=plan.num_bytes,
        num_shards=len(plan.shards),
        left_out=tuple(damages),
        num_newer_parts=num_newer,
    )


def _check_apart(store: Store, place: Store) -> None:
    one, other = (f"{at.url_of('').rstrip('/')}/" for at in (store, place))
    if one.startswith(other) or other.startswith(one):
        raise JobError(
            f"{place.url_of('')} and the output {store.url_of('')} lie in each other",
            "choose a place of its own: what reads one would read both",
        )
