"""The command `framefleet export`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Exit, Option

from framefleet.api.commands import OutputToRead, StorageSets, Where, resumable, stderr, stdout
from framefleet.api.errors import FramefleetError, JobError, count_text
from framefleet.pipeline.plugin import by_name
from framefleet.plugins.export.choice import SHARD_MB, SHARD_ROWS, ClipFile, ExportChoice

if TYPE_CHECKING:
    from framefleet.plugins.export.export import Exported

_MAX_SHOWN = 20  # a screenful
_SAID = {"missing": "gone", "size": "size differs", "bytes": "bytes differ", "unreadable": "unreadable"}


@resumable
def export_command(
    output: OutputToRead,
    to: Annotated[str, Argument(metavar="DEST", help="Folder to create or fill, or a URL to write to.")],
    format: Annotated[
        str,
        Option(
            "--format",
            metavar="webdataset|parquet|hf|folder|vbench|preferences|trajectories|trajectories-parquet|lerobot|NAME",
            help="Format: webdataset (tar shards), parquet (with the clips), hf (Hugging Face `datasets`), "
            "folder (clips with readable names), vbench (file names that VBench expects), preferences "
            "(pairs of a better and a worse clip of a prompt), trajectories (tar shards with latents and "
            "other arrays that `keep:` stored), trajectories-parquet, lerobot (augmented robot episodes), or "
            "one that a plugin adds.",
        ),
    ],
    file: Annotated[
        ClipFile,
        Option("--file", help="File to export for each row: clip, or derived (the second, from `post:`)."),
    ] = "clip",
    where: Where = None,
    picks: Annotated[
        str | None,
        Option(
            "--picks",
            metavar="PICKS.JSONL",
            help="Export only rows in this file. Its stars and notes become columns, also for --where.",
        ),
    ] = None,
    in_table: Annotated[
        bool, Option("--in-table", help="Leave out clips of rows that are no longer in the job's table.")
    ] = False,
    columns: Annotated[
        list[str] | None,
        Option(
            "--columns",
            metavar="A,B|all",
            help="Columns to export. Default: what a trainer needs (prompt, seed, size, scores, labels).",
        ),
    ] = None,
    caption: Annotated[
        str | None,
        Option("--caption", metavar="TEMPLATE", help='Template for captions, e.g. "{prompt}, {style}".'),
    ] = None,
    validation: Annotated[
        float | None,
        Option(
            "--validation",
            metavar="SHARE",
            help="Share of the prompts for a validation split, e.g. 0.1 for 10 %.",
        ),
    ] = None,
    near_duplicates: Annotated[
        int | None,
        Option(
            "--near-duplicates",
            metavar="BITS",
            help="Leave out clips that look like an earlier one: perceptual hashes that differ in at most "
            "BITS of 64 bits, e.g. 6. Needs framefleet's extra `dedup`.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        Option(
            "--by",
            metavar="COLUMN|stars|picks",
            help="Rating that decides which clip of a pair is better: a column (larger is better), e.g. a "
            "score; stars (default); or picks (a star or none).",
        ),
    ] = None,
    margin: Annotated[
        float | None,
        Option(
            "--margin",
            min=0,
            metavar="X",
            help="Minimum difference between the ratings of a pair (ties never pair).",
        ),
    ] = None,
    max_pairs: Annotated[
        int | None,
        Option(
            "--max-pairs",
            min=1,
            metavar="N",
            help="Maximum number of pairs per prompt, largest differences first (default: 100).",
        ),
    ] = None,
    shard_rows: Annotated[
        int, Option("--shard-rows", min=1, metavar="N", help="Maximum number of rows per shard.")
    ] = SHARD_ROWS,
    shard_mb: Annotated[
        int,
        Option("--shard-mb", min=1, metavar="MB", help="Maximum size of the clips per shard, in megabytes."),
    ] = SHARD_MB,
    name: Annotated[
        str | None,
        Option(
            "--name",
            metavar="TEMPLATE",
            help='Template for file names with --format folder. Default: "{prompt:.60}-{seed}".',
        ),
    ] = None,
    push: Annotated[
        str | None,
        Option("--push", metavar="ORG/NAME", help="Push DEST to this dataset on the Hugging Face hub."),
    ] = None,
    private: Annotated[bool, Option("--private", help="Create the dataset on the hub as private.")] = False,
    sets: StorageSets = None,
) -> None:
    """Write clips and records of an output as a dataset for others: WebDataset, Parquet or Hugging Face.

    Every clip is compared with its record. Exit code 1: some clips are damaged and were left out. Run the
    same command again after an interruption. --set storage_options.KEY=VALUE sets an option of the stores
    of OUTPUT and DEST, --set to_options.KEY=VALUE of DEST only.
    """
    from framefleet.api.jobs import options_alone, watch_on
    from framefleet.api.outputs import Output
    from framefleet.plugins.export.export import export_chosen
    from framefleet.plugins.export.push import Hub
    from framefleet.plugins.picks import picked

    options = options_alone(sets, "storage_options", "to_options")
    theirs = options.get("storage_options") or {}
    names = [name.strip() for text in columns or [] for name in text.split(",")]
    choice = ExportChoice(
        format=format,
        file=file,
        where=where,
        picks=picked(picks, theirs),
        in_table=in_table,
        columns=tuple(names) if columns else None,
        caption=caption,
        validation=validation,
        near_duplicates=near_duplicates,
        name=name,
        by=by,
        margin=margin,
        max_pairs=max_pairs,
        shard_rows=shard_rows,
        shard_mb=shard_mb,
    )
    if private and not push:
        problem = "--private is for a dataset on the hub, but --push is not set"
        raise JobError(problem, "add --push, or leave it out")
    opened = Output.open(output, theirs)
    hub = Hub(push, is_private=private) if push else None  # fails now if it cannot push
    with watch_on(stderr) as watch:
        to_options = options.get("to_options") or theirs
        exported = export_chosen(opened, to, to_options, choice, watch)
        url = hub.push(exported.place, watch) if hub else None
    if choice.picks:
        tables = opened.records(["row_id"])
        unknown = set(choice.picks).difference(*(table.column("row_id").to_pylist() for table in tables))
        if unknown:
            stderr.say(f"{count_text(len(unknown), 'pick')} without a record in this output")
    if near_duplicates is not None:
        stderr.say(f"left out: {count_text(len(exported.near_duplicates), 'near duplicate')}")
    _show(exported, format)
    stdout.say(exported.place.url_of(""))
    if url:
        stdout.say(url)
    if not in_table:
        with suppress(FramefleetError):  # from parts that the export does not need
            if num_former := opened.counts().former:
                clips = count_text(num_former, "clip")
                stderr.say(f"note: {clips} of rows that left the table; --in-table leaves them out")
    raise Exit(1 if exported.left_out else 0)


def _show(exported: Exported, format: str) -> None:
    for damage in exported.left_out[:_MAX_SHOWN]:
        stderr.say(
            f"{damage.path}: {_SAID.get(damage.kind) or damage.reason}, so row {damage.row_id} is left out"
        )
    if len(exported.left_out) > _MAX_SHOWN:
        stderr.say(f"... and {len(exported.left_out) - _MAX_SHOWN:,} more")
    if exported.left_out:
        stderr.say(
            "restore them and run this again, or `framefleet repair` the output and export to another place"
        )
    for duplicate in exported.near_duplicates[:_MAX_SHOWN]:
        stderr.say(
            f"row {duplicate.row_id} is left out: near duplicate of {duplicate.kept} "
            f"({duplicate.distance} of 64 bits differ)"
        )
    if len(exported.near_duplicates) > _MAX_SHOWN:
        stderr.say(f"... and {len(exported.near_duplicates) - _MAX_SHOWN:,} more")
    if exported.num_not_compared:
        stderr.say(f"not compared: {count_text(exported.num_not_compared, 'clip')} without frames; exported")
    if exported.columns_left_out:
        columns = count_text(len(exported.columns_left_out), "column")
        stderr.say(f"left out: {columns} of the records; --columns all adds them")
    for split, num_rows in exported.splits.items():
        hint = "" if num_rows else ": too few prompts for this --validation"
        stderr.say(f"{split}: {count_text(num_rows, 'row')}{hint}")
    clips = count_text(exported.num_rows, "clip")
    text = f"{clips} in {count_text(exported.num_shards, 'shard')}"
    if exported.num_pairs is not None:
        text = f"{count_text(exported.num_pairs, 'pair')} of {clips}"
    stderr.say(f"{text}; {by_name('export_formats')[format]().read_by}")
