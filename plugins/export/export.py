"""Export an output's clips and records as a dataset, shard by shard."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from framefleet.api.commands import Callback, ClipsPace, ClipsProgress, Overview, Watch, wait_for
from framefleet.api.errors import JobError, bytes_text, count_text
from framefleet.api.jobs import JOB_JSON, sections
from framefleet.api.outputs import Output, Store, dated, rows_of
from framefleet.api.sections import AtLeastOne
from framefleet.pipeline.outputs.output import find_claim_as
from framefleet.pipeline.outputs.stores.store import sweep_in_background
from framefleet.pipeline.plugin import by_name
from framefleet.plugins.export import formats, preferences, shard, shard_writer
from framefleet.plugins.export.card import write_card
from framefleet.plugins.export.choice import SHARD_MB, SHARD_ROWS, ClipFile, ExportChoice
from framefleet.plugins.export.clip_names import MAX_NAME_BYTES, clip_names
from framefleet.plugins.export.labels import CAPTION, prompt_of
from framefleet.plugins.export.selection import (
    CLIPS_AT_ONCE,
    SPLITS,
    NearDuplicate,
    Selection,
    find_near_duplicates,
)
from framefleet.plugins.keep.damage import Damage
from framefleet.plugins.picks import picked


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Exported(Overview):
    """The finished export, including what earlier runs wrote."""

    place: Store
    num_rows: int
    num_bytes: int
    num_shards: int
    left_out: tuple[Damage, ...] = ()  # rows whose clips are damaged
    columns: tuple[str, ...] = ()  # of each row
    columns_left_out: tuple[str, ...] = ()  # of the records
    # Rows of train and validation; {} without a split.
    splits: Mapping[str, int] = field(default_factory=dict)
    near_duplicates: tuple[NearDuplicate, ...] = ()  # rows left out because an earlier one looks the same
    num_pairs: int | None = None  # of --format preferences
    num_not_compared: int = 0  # clips that were not checked for near duplicates, because they have no frames
    num_newer_parts: int = 0  # parts of records that were added after the export began

    def overview(self) -> Mapping[str, object]:
        splits = ", ".join(f"{count:,} {name}" for name, count in self.splits.items())
        return {
            "place": self.place.url_of(""),
            "rows": f"{self.num_rows:,}" + (f" ({splits})" if splits else ""),
            "pairs": f"{self.num_pairs:,}" if self.num_pairs is not None else None,
            "size": f"{bytes_text(self.num_bytes)} in {count_text(self.num_shards, 'shard')}",
            "left out": count_text(len(self.left_out), "damaged clip") if self.left_out else None,
            "near duplicates": f"{len(self.near_duplicates):,} left out" if self.near_duplicates else None,
            "columns": ", ".join(self.columns) or None,
        }


def export(
    output: str,
    to: str,
    *,
    format: str,
    file: ClipFile = "clip",
    where: str | None = None,
    picks: str | Path | Collection[str] | None = None,
    in_table: bool = False,
    columns: Sequence[str] | Literal["all"] | None = None,
    caption: str | None = None,
    validation: float | None = None,
    near_duplicates: int | None = None,
    name: str | None = None,
    by: str | None = None,
    margin: float | None = None,
    max_pairs: AtLeastOne | None = None,
    shard_rows: AtLeastOne = SHARD_ROWS,
    shard_mb: AtLeastOne = SHARD_MB,
    storage_options: Mapping[str, Any] | None = None,
    to_options: Mapping[str, Any] | None = None,
    on_progress: Callable[[ClipsProgress], None] | None = None,
) -> Exported:
    """Write the clips and records of an output as a dataset for others, to a folder or a URL.

    format: webdataset (tar shards), parquet (clips in a column), hf (for `datasets.load_dataset`), folder
    (clips with readable names), vbench (file names that VBench expects), preferences (pairs of a better and a
    worse clip of a prompt), trajectories or trajectories-parquet (with the arrays that `keep:` stored),
    lerobot (augmented robot episodes), or one that a plugin adds. file: the row's clip, or derived, the
    second file that `post:` made.
    name: a template for file names (format folder), as for `str.format`, e.g. "{prompt:.40}-{seed}".
    where: SQL on a record's columns, e.g. "sharpness > 0.4". picks: row_ids, or a file of them from the
    gallery. Its stars and notes become columns, also for `where`. in_table: only rows that are still in the
    job's table. columns: names, or "all"; by default what a trainer needs (prompt, seed, size, scores and the
    table's own columns). caption: a template, e.g. "{prompt}, {style}".
    validation: share of the prompts that go to a validation split, with all their rows.
    near_duplicates: leave out clips whose perceptual hashes differ from an earlier clip's in at most this
    many of 64 bits (needs framefleet[dedup]). by: column that rates clips (format preferences), stars (the
    default) or picks (a star or none). margin: minimum difference between the ratings of a pair; ties never
    pair. max_pairs: maximum number of pairs per prompt, largest differences first (100). to_options: storage
    options of `to`, if they differ from the output's. The same call continues after an interruption.
    Damaged clips are left out and reported. Raises JobError if `to` contains something else.
    """
    options = dict(storage_options or {})
    choice = ExportChoice(
        format=format,
        file=file,
        where=where,
        picks=picked(picks, options),
        in_table=in_table,
        columns=(columns,) if isinstance(columns, str) else None if columns is None else tuple(columns),
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
    theirs = options if to_options is None else to_options
    return export_chosen(Output.open(output, options), to, theirs, choice, Callback(on_progress))


def export_chosen(
    output: Output, to: str, options: Mapping[str, Any], choice: ExportChoice, watch: Watch
) -> Exported:
    """Export as `export` does, and report to `watch`. options: storage_options of `to`."""
    place = Store(dated(to), options)
    one, other = (f"{at.url_of('').rstrip('/')}/" for at in (output.store, place))
    if one.startswith(other) or other.startswith(one):
        problem = f"{place.url_of('')} is not separate from the output {output.url}"
        raise JobError(problem, "choose another place; readers of one would read both")
    if choice.near_duplicates is not None and find_spec("imagehash") is None:
        raise JobError("near_duplicates needs imagehash", "pip install 'framefleet[dedup]'")
    wait_for(watch, "reading the records")
    version = shard.version_to_export(output, place)
    if num_newer := version.num_newer_parts():
        watch.say(
            f"note: left out: {count_text(num_newer, 'part')} of records, newer than this export; "
            "export to another place to include them"
        )
    if choice.format == "preferences":
        choice = preferences.rated_by(version, choice)
    selection = Selection(version, preferences.to_select(choice))
    duplicates, num_not_compared = list[NearDuplicate](), 0
    if choice.near_duplicates is not None:
        duplicates, num_not_compared = find_near_duplicates(selection, choice.near_duplicates, watch)
        selection.leave_out([duplicate.row_id for duplicate in duplicates])
    kind: type[shard_writer.ShardWriter] = by_name("export_formats")[choice.format]()
    prepared = kind.prepare(selection, version, options, watch)
    pairs: list[preferences.Pair] | None = None
    if choice.format == "preferences":
        pairs = preferences.pairs_of(selection, choice)
        selection.keep_only(sorted({clip.row_id for pair in pairs for clip in (pair.chosen, pair.rejected)}))
    plan = shard.plan_of(selection)
    feature = formats.feature_of(plan.endings)
    if choice.format in ("hf", "preferences"):
        formats.check_folder(plan.endings, feature, selection.schema)
    names = vbench_names(selection, plan.endings) if choice.format == "vbench" else {}
    if choice.format == "folder":
        names = clip_names(selection, choice.name)
    shard.claim_place(place, choice, plan, version, selection.columns)
    shard.check_case(place, names.values())
    sweep_in_background(place)
    with (
        ThreadPoolExecutor(CLIPS_AT_ONCE) as readers,
        tempfile.TemporaryDirectory(prefix="framefleet-") as scratch,
    ):
        target = shard_writer.Target(
            place=place,
            columns=selection.columns,
            added=frozenset(selection.added),
            feature=feature,
            scratch=Path(scratch),
            copiers=readers,
            names=names,
            prepared=prepared,
        )
        damages = write_shards(selection, kind, plan, target, watch)
        left_out = tuple(damage for of_shard in damages.values() for damage in of_shard)
        lost = {damage.row_id for damage in left_out}
        num_pairs = None if pairs is None else preferences.write_pairs(pairs, lost, target)
        kind.complete(selection, target, lost, watch)
    if choice.format in ("hf", "preferences"):
        names_there = shard_writer.own_names(
            selection.columns, shard_writer.taken_in_folder(feature, selection.columns)
        )
        fields = [one.with_name(name) for one, name in zip(selection.fields, names_there, strict=True)]
        fields = [pa.field("file_name", pa.string()), *fields] if pairs is None else [*preferences.FIELDS]
        write_card(
            place,
            selection.licensed(),
            columns=fields,
            endings=plan.endings,
            num_rows=plan.num_rows if num_pairs is None else num_pairs,
            feature=feature,
            language_models=_language_models(output),
        )
    splits: dict[str, int] = {} if choice.validation is None else dict.fromkeys(SPLITS, 0)
    for number, planned in enumerate(plan.shards):
        if planned.split is not None:
            splits[planned.split] += planned.num_rows - len(damages.get(number, ()))
    return Exported(
        place=place,
        num_rows=plan.num_rows - len(left_out),
        num_bytes=plan.num_bytes,
        num_shards=len(plan.shards),
        left_out=left_out,
        columns=selection.columns if pairs is None else (),
        columns_left_out=selection.left_out if pairs is None else (),
        splits=splits,
        near_duplicates=tuple(duplicates),
        num_pairs=num_pairs,
        num_not_compared=num_not_compared,
        num_newer_parts=num_newer,
    )


def _language_models(output: Output) -> list[tuple[str, str]]:
    """Return (section of the job, model) for each language model that the job uses."""
    try:
        claim = find_claim_as(output.store, JOB_JSON)
    except JobError:  # job.json is lost or damaged, which `verify` reports
        claim = None
    models: dict[tuple[str, str], None] = {}
    for section in sections():
        level = [(claim.job.model_extra or {}).get(section)] if claim else []
        while level:
            mappings = [one for one in level if isinstance(one, Mapping)]
            endpoints = (one["model"] for one in mappings if "url" in one and "model" in one)
            models |= {(section, model): None for model in endpoints if isinstance(model, str)}
            values = [inner for one in mappings for inner in one.values()]
            level = values + [inner for one in level if isinstance(one, list) for inner in one]
    return list(models)


def write_shards(
    selection: Selection,
    kind: type[shard_writer.ShardWriter],
    plan: shard.ExportPlan,
    target: shard_writer.Target,
    watch: Watch,
) -> dict[int, list[Damage]]:
    """Write the shards that are missing; return the damaged clips that were left out, by shard number."""
    # Write shards with missing rows again, since clips may have been repaired.
    names = [kind.path_of(planned.name) for planned in plan.shards]
    wanting = {Path(path).stem for path in target.place.list(f"{shard.NOTES}/left-out")}
    there = target.copiers.map(target.place.exists, names)
    done = {number for number, is_there in enumerate(there) if is_there and f"{number:06}" not in wanting}
    before = sum(plan.shards[number].num_rows for number in done)
    pace = ClipsPace("exported", total=plan.num_rows, before=before, watch=watch)
    pieces = (piece for piece in selection.pieces(is_whole=True) if piece.shard not in done)
    damages: dict[int, list[Damage]] = {}
    clips = selection.read_clips(pieces, target.copiers)
    for number, read in groupby(clips, key=lambda pair: pair[0].shard):
        # A shard becomes visible all at once, and only if it has the planned rows.
        writer: shard_writer.ShardWriter | None = None
        digest, left_out = hashlib.sha256(), list[Damage]()
        for piece, contents in read:
            piece.digest(digest)
            left_out += [clip for clip in contents if isinstance(clip, Damage)]
            sound = [files for files in contents if not isinstance(files, Damage)]
            if sound:
                writer = kind(target, plan.shards[number].name) if writer is None else writer
                writer.add_files(
                    piece.rows.filter([not isinstance(files, Damage) for files in contents]), sound
                )
            pace.add(len(sound), sum(len(content) for files in sound for content in files))
        if number >= len(plan.shards) or digest.hexdigest() != plan.shards[number].sha256:
            raise _changed()
        note = f"{shard.NOTES}/left-out/{number:06}.jsonl"
        if left_out:
            lines = [json.dumps(asdict(damage), ensure_ascii=False) for damage in left_out]
            target.place.write(note, "\n".join(lines).encode() + b"\n")
        if writer is not None:
            writer.finish()
        if not left_out:
            target.place.delete(note)
        damages[number] = left_out
    if len(done | damages.keys()) != len(plan.shards):
        raise _changed()
    return damages


def _changed() -> JobError:
    problem = "the chosen rows have changed since this export began"
    return JobError(problem, "run it again when the output is stable; --where must not use random()")


# VBench expects five clips of each prompt, PROMPT-INDEX.mp4, with indices from 0 to 4.
# https://github.com/Vchitect/VBench/tree/master/prompts
_ENDINGS = (".mp4", ".gif")


def vbench_names(selection: Selection, endings: Collection[str]) -> dict[str, str]:
    """Return the names of the clips, by row_id. Clips of a prompt are numbered in the order of the table.

    The export's caption, if any, replaces the prompt. Raises JobError for names that VBench would not find.
    """
    if len(endings) > 1 or not {*endings} <= {*_ENDINGS}:
        problem = f"clips end in {', '.join(sorted(endings))}, but VBench reads {' or '.join(_ENDINGS)}"
        raise JobError(problem, "render with media.format mp4, or choose other clips with --where")
    (ending,) = endings
    clips: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for table in selection.rows("seed", "row_indices"):
        for row in rows_of(table, "records"):
            prompt = row[CAPTION] if CAPTION in selection.added else prompt_of(row)
            clips[prompt].append((min(row["row_indices"], default=0), row["seed"], row["row_id"]))
    names = {}
    for prompt, of_prompt in clips.items():
        seed, num_clips = Counter(seed for _, seed, _ in of_prompt).most_common(1)[0]
        if num_clips > 1 and prompt:
            raise JobError(
                f"{prompt[:100]!r} has {count_text(num_clips, 'clip')} with the seed {seed}",
                "choose clips of one setting with --where; VBench compares models at one setting",
            )
        for index, (_, _, row_id) in enumerate(sorted(of_prompt)):
            name = names[row_id] = f"{prompt}-{index}{ending}"
            if not prompt or {"/", "\\", "\0"} & {*name} or len(name.encode()) > MAX_NAME_BYTES:
                problem = "is empty" if not prompt else "cannot be the name of a file"
                problem = f"the prompt of row {row_id} {problem}: {prompt[:100]!r}"
                raise JobError(problem, "leave it out with --where; VBench finds videos by their prompt")
    return names
