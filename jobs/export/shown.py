"""What `framefleet export` does, and what it prints about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from framefleet.jobs.show.console import stderr, stdout
from framefleet.jobs.show.progress import watch_on

if TYPE_CHECKING:
    from framefleet.jobs.export.choice import ExportFormat
    from framefleet.jobs.export.export import Exported

_MAX_SHOWN = 20  # a screenful
_SAID = {
    "missing": "gone",
    "size": "of another size",
    "bytes": "of other bytes",
    "unreadable": "unreadable",
}
_READ_BY: dict[ExportFormat, str] = {
    "webdataset": "read it with webdataset.WebDataset",
    "parquet": "read it with datasets.load_dataset, DuckDB, pandas",
    "hf": "read it with datasets.load_dataset",
}


def show_export(
    output: str,
    to: str,
    *,
    format: ExportFormat,
    picks: str | None,
    columns: Sequence[str] | None,
    push: str | None,
    private: bool,
    options: Mapping[str, Any],
    **choice: Any,
) -> bool:
    """Export, push if that is asked for, and say what came of it; return whether every row is there."""
    from framefleet.jobs.export.choice import ExportChoice
    from framefleet.jobs.export.export import export_chosen
    from framefleet.jobs.export.picks import picked
    from framefleet.jobs.export.push import Hub
    from framefleet.pipeline.outputs.stores.store import Store

    theirs = options.get("storage_options") or {}
    chosen = ExportChoice(
        format=format,
        picks=picked(picks, theirs),
        columns=None if columns is None else tuple(columns),
        **choice,
    )
    place = Store(to, options.get("to_options") or theirs)
    hub = Hub(push, is_private=private) if push else None  # what keeps it from being pushed is told first
    with watch_on(stderr) as watch:
        exported = export_chosen(Store(output, theirs), place, chosen, watch)
        url = hub.push(place, watch) if hub else None
    if chosen.picks is not None and chosen.where is None:
        found = exported.num_rows + len(exported.left_out) + len(exported.near_duplicates)
        _tell_unknown(len(chosen.picks) - found)
    _show(exported, format)
    if url:
        stdout.say(url)
    return not exported.left_out


def _tell_unknown(num_picks: int) -> None:
    if num_picks:
        stderr.say(f"{num_picks:,} picks have no record in this output")


def _show(exported: Exported, format: ExportFormat) -> None:
    for damage in exported.left_out[:_MAX_SHOWN]:
        stderr.say(f"{damage.path}: {_SAID[damage.kind]}, so row {damage.row_id} is left out")
    if len(exported.left_out) > _MAX_SHOWN:
        stderr.say(f"... and {len(exported.left_out) - _MAX_SHOWN:,} more")
    if exported.left_out:
        stderr.say(
            "put them back and run this again; or `framefleet repair` the output, and export it elsewhere"
        )
    for duplicate in exported.near_duplicates[:_MAX_SHOWN]:
        stderr.say(
            f"row {duplicate.row_id} is left out: near duplicate of {duplicate.kept} "
            f"({duplicate.distance} of 64 bits differ)"
        )
    if len(exported.near_duplicates) > _MAX_SHOWN:
        stderr.say(f"... {len(exported.near_duplicates):,} near duplicates in all")
    if exported.num_not_compared:
        stderr.say(f"{exported.num_not_compared:,} clips have no frames to compare, and are not left out")
    if exported.columns_left_out:
        stderr.say(
            f"{len(exported.columns_left_out)} columns of the records are left out; --columns all adds them"
        )
    for split, num_rows in exported.splits.items():
        hint = "" if num_rows else ": too few prompts for this --validation"
        stderr.say(f"{split}: {num_rows:,} rows{hint}")
    shards = "1 shard" if exported.num_shards == 1 else f"{exported.num_shards:,} shards"
    stderr.say(f"{exported.num_rows:,} clips in {shards}; {_READ_BY[format]}")
    stdout.say(exported.place.url_of(""))
