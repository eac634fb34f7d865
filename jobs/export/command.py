"""`framefleet export`, as it is typed."""

from __future__ import annotations

from typing import Annotated

import typer

from framefleet.jobs.export.choice import SHARD_MB, SHARD_ROWS, ExportFormat
from framefleet.jobs.options import StorageSets, Verbose
from framefleet.jobs.show.console import reporting

_Output = Annotated[str, typer.Argument(metavar="OUTPUT", help="Output to export: a folder or a URL.")]
_To = Annotated[str, typer.Argument(metavar="DEST", help="Place to write to: an empty folder, or a URL.")]
_Format = Annotated[
    ExportFormat,
    typer.Option(
        "--format", help="Format: tar shards, Parquet with the clips in it, or a folder for `datasets`."
    ),
]
_Where = Annotated[
    str | None,
    typer.Option(
        "--where", metavar="SQL", help='Export only rows for which this is true, e.g. "sharpness > 0.4".'
    ),
]
_Picks = Annotated[
    str | None,
    typer.Option(
        "--picks",
        metavar="PICKS.JSONL",
        help="File of row_ids to export. Its stars and notes become columns.",
    ),
]
_Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        metavar="A,B|all",
        help="Columns of the records. Default: what a trainer needs (prompt, seed, size, scores, labels).",
    ),
]
_Caption = Annotated[
    str | None,
    typer.Option("--caption", metavar="TEMPLATE", help='Caption from columns, e.g. "{prompt}, {style}".'),
]
_Validation = Annotated[
    float | None,
    typer.Option("--validation", metavar="SHARE", help="Share of the prompts for a validation split."),
]
_NearDuplicates = Annotated[
    int | None,
    typer.Option(
        "--near-duplicates",
        metavar="BITS",
        help="Leave out clips that look like an earlier one: hashes differ in at most BITS of 64, e.g. 6.",
    ),
]
_ShardRows = Annotated[int, typer.Option("--shard-rows", min=1, help="Maximum number of rows of a shard.")]
_ShardMb = Annotated[
    int, typer.Option("--shard-mb", min=1, help="Maximum size of the clips of a shard, in megabytes.")
]
_Push = Annotated[
    str | None,
    typer.Option("--push", metavar="ORG/NAME", help="Push DEST to this dataset of the hub afterwards."),
]
_Private = Annotated[bool, typer.Option("--private", help="Create the dataset of the hub as private.")]


def export_command(
    output: _Output,
    to: _To,
    format: _Format,
    where: _Where = None,
    picks: _Picks = None,
    columns: _Columns = None,
    caption: _Caption = None,
    validation: _Validation = None,
    near_duplicates: _NearDuplicates = None,
    shard_rows: _ShardRows = SHARD_ROWS,
    shard_mb: _ShardMb = SHARD_MB,
    push: _Push = None,
    private: _Private = False,
    sets: StorageSets = None,
    verbose: Verbose = False,
) -> None:
    """Write clips and records of an output as a dataset for others: WebDataset, Parquet or Hugging Face.

    Every clip is compared with its record. Exit code 1: some are damaged, and left out. Run the same command
    again after an interruption. --set storage_options... is for both places, --set to_options... for DEST.
    """
    with reporting(verbose=verbose, resumable=True):
        from framefleet.jobs.export.shown import show_export
        from framefleet.jobs.job.file import set_values

        is_whole = show_export(
            output,
            to,
            format=format,
            where=where,
            picks=picks,
            columns=[name.strip() for text in columns for name in text.split(",")] if columns else None,
            caption=caption,
            validation=validation,
            near_duplicates=near_duplicates,
            shard_rows=shard_rows,
            shard_mb=shard_mb,
            push=push,
            private=private,
            options=set_values(sets or []),
        )
    raise typer.Exit(0 if is_whole else 1)
