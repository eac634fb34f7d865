"""Pair better clips of a selection with worse ones, by a column that rates them.

The clips of a pair have the same prompt, inputs and size. Each clip is stored once, however many pairs it
is in. `metadata.parquet` names both, so that `datasets` opens them as `chosen` and `rejected`. It also has
pictures, in the columns of Pick-a-Pic, which diffusers' script for DPO reads:
https://github.com/huggingface/diffusers/tree/main/examples/research_projects/diffusion_dpo
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from framefleet.api.clips import inputs_in
from framefleet.api.errors import JobError
from framefleet.api.exports import ShardWriter, Target, file_names
from framefleet.api.outputs import RECORDS, Output, fix_of_missing, rows_of, told_arguments
from framefleet.api.texts import canonical_json
from framefleet.plugins.export.choice import MAX_PAIRS, ExportChoice
from framefleet.plugins.export.labels import CAPTION, PROMPT_COLUMN, STARS, prompt_of
from framefleet.plugins.export.selection import Selection, Split, split_of
from framefleet.plugins.picks import Pick, read_picks

PICKED = "picks"  # value of --by: clips with a star are better than clips without
_SIZE = ("height", "width", "num_frames")
FIELDS = pa.schema(
    [
        ("prompt", pa.string()),
        ("caption", pa.string()),
        ("chosen_file_name", pa.string()),
        ("rejected_file_name", pa.string()),
        ("chosen_rating", pa.float64()),
        ("rejected_rating", pa.float64()),
        ("chosen_row_id", pa.string()),
        ("rejected_row_id", pa.string()),
    ]
)
# The columns of Pick-a-Pic: label_0 is 1 if jpg_0 is the better one.
_PICTURES = pa.schema(
    [("jpg_0", pa.binary()), ("jpg_1", pa.binary()), ("label_0", pa.float64()), ("label_1", pa.float64())]
)
_PAIRS_AT_ONCE = 64  # per row group, with two pictures each


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """A clip. file_name: relative to the folder of its split."""

    row_id: str
    file_name: str
    prompt: str
    caption: str
    rating: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    split: Split | None
    chosen: Rated
    rejected: Rated


class PairedClips(ShardWriter):
    """The clips of pairs. The pairs themselves are written last, by `write_pairs`."""

    read_by = "read it with datasets.load_dataset"

    @staticmethod
    def path_of(name: str) -> str:
        return f".framefleet/clips/{name}"

    def add(self, rows: pa.Table, clips: Sequence[bytes]) -> None:
        split = self.name.rpartition("-")[0]
        folder = _folder(None if split == "shard" else split)
        names = (f"{folder}/{_file_name(name)}" for name in file_names(rows))
        list(self.target.copiers.map(self.target.place.write, names, clips))

    def finish(self) -> None:
        self.target.place.write(self.path_of(self.name), b"")


def _file_name(name: str) -> str:
    """Return a clip's path in the folder of its split. The hub allows 10,000 files per folder."""
    return f"{name[:2]}/{name}"


def _folder(split: str | None) -> str:
    return f"data/{split}" if split else "data"


def rated_by(output: Output, choice: ExportChoice) -> ExportChoice:
    """Return the choice with the column that rates clips; by default, this output's stars.

    Raises JobError for a column that is not a rating, and if there are no stars.
    """
    schema, by = output.schema(), choice.by or STARS
    if by in (STARS, PICKED):
        picks = choice.picks
        if picks is None:
            stored = read_picks(output.store)
            picks = {row_id: Pick(stars=pick.stars) for row_id, pick in stored.items() if pick.stars}
        if not any(pick.stars or by == PICKED for pick in picks.values()):
            numbers = [field.name for field in schema if _is_rating(field.type)]
            problem = f"no clip of {output.url} has stars"
            raise JobError(problem, f"give some in its gallery, or use --by with one of {', '.join(numbers)}")
        return replace(choice, by=by, picks=picks)
    if by not in schema.names:
        raise JobError(f"by: there is no column {by!r}", fix_of_missing(by, schema.names))
    if not _is_rating(kind := schema.field(by).type):
        problem = f"by: column {by!r} contains {kind}, not numbers or booleans"
        raise JobError(problem, "use a score, a judge's answer, stars or picks")
    return choice


def to_select(choice: ExportChoice) -> ExportChoice:
    """Return the choice of clips to read; with --by picks, also clips without a star. Without columns."""
    if choice.format != "preferences":
        return choice
    return replace(choice, columns=(), picks=None if choice.by == PICKED else choice.picks)


def _is_rating(kind: pa.DataType) -> bool:
    return any(is_of(kind) for is_of in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean))


def pairs_of(selection: Selection, choice: ExportChoice) -> list[Pair]:
    """Return the pairs of a selection: for each prompt at most `max_pairs`, the largest margins first.

    Rows without a rating are left out. So are pairs with equal ratings, or a difference below `margin`.
    Raises JobError if there is no pair.
    """
    by, margin = choice.by or STARS, choice.margin or 0.0
    groups: dict[tuple[str, Split | None], list[Rated]] = defaultdict(list)
    columns = [] if by in (STARS, PICKED) else [by]
    for table in selection.rows(*columns, *_SIZE, "arguments"):
        for row, name in zip(rows_of(table, RECORDS), file_names(table), strict=True):
            if by == PICKED:
                rating: float | None = row["row_id"] in (choice.picks or {})
            else:
                rating = row[by]
            if rating is None or math.isnan(rating):
                continue
            prompt, share = prompt_of(row), choice.validation
            split = None if share is None else split_of(prompt or row["row_id"], share)  # as its clip is
            groups[_equal_parts(row, prompt), split].append(
                Rated(
                    row_id=row["row_id"],
                    file_name=_file_name(name),
                    prompt=prompt,
                    caption=row[CAPTION] if CAPTION in selection.added else prompt,
                    rating=float(rating),
                )
            )
    pairs = []
    for (_, split), alike in groups.items():
        best = islice(_by_margin(alike, margin), choice.max_pairs or MAX_PAIRS)
        pairs += [Pair(split=split, chosen=chosen, rejected=rejected) for chosen, rejected in best]
    if not pairs:
        problem = f"no two clips of a prompt differ in {by}" + f" by {margin:g}" * (margin > 0)
        raise JobError(problem, "render several seeds of each prompt, rate more of them, or lower --margin")
    return pairs


def _equal_parts(row: Mapping[str, object], prompt: str) -> str:
    """Return a key of what the clips of a pair have in common: prompts, input images and videos, size."""
    arguments = told_arguments(row)
    inputs = {name: [part.get("sha256") for part in inputs_in(value)] for name, value in arguments.items()}
    texts = {name: value for name, value in arguments.items() if name.startswith(PROMPT_COLUMN)}
    conditions = {**texts, PROMPT_COLUMN: prompt, **{name: found for name, found in inputs.items() if found}}
    return canonical_json([conditions, *(row[name] for name in _SIZE)])


def _by_margin(alike: Sequence[Rated], margin: float) -> Iterator[tuple[Rated, Rated]]:
    """Yield pairs (better, worse) with at least this margin, the largest margins first."""
    ranked = sorted(alike, key=lambda one: -one.rating)
    last = len(ranked) - 1

    def entry(better: int, worse: int) -> tuple[float, int, int]:
        high, low = ranked[better].rating, ranked[worse].rating
        return (0.0 if high == low else low - high), better, worse  # inf - inf would be NaN

    heap = [entry(better, last) for better in range(last)]
    heapq.heapify(heap)
    while heap:
        lead, better, worse = heapq.heappop(heap)
        if lead == 0 or (-lead < margin and not math.isclose(-lead, margin)):
            return
        yield ranked[better], ranked[worse]
        if worse - 1 > better:
            heapq.heappush(heap, entry(better, worse - 1))


def write_pairs(pairs: Sequence[Pair], lost: Collection[str | None], target: Target) -> int:
    """Write the pairs whose clips are both exported; return their number. lost: row_ids of other clips."""
    there = [pair for pair in pairs if not {pair.chosen.row_id, pair.rejected.row_id} & {*lost}]
    has_pictures = target.feature == "image"
    schema = pa.schema([*FIELDS, *(_PICTURES if has_pictures else ())])
    for split, of_split in groupby(sorted(there, key=lambda pair: pair.split or ""), lambda pair: pair.split):
        folder = _folder(split)
        path = Path(target.scratch, "metadata.parquet")
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            while some := list(islice(of_split, _PAIRS_AT_ONCE)):
                rows = [_row(pair) for pair in some]
                if has_pictures:
                    names = dict.fromkeys(
                        name for pair in some for name in (pair.chosen.file_name, pair.rejected.file_name)
                    )
                    contents = target.copiers.map(target.place.read, (f"{folder}/{name}" for name in names))
                    pictures = dict(zip(names, contents, strict=True))
                    for row, pair in zip(rows, some, strict=True):
                        row |= {"jpg_0": pictures[pair.chosen.file_name], "label_0": 1.0}
                        row |= {"jpg_1": pictures[pair.rejected.file_name], "label_1": 0.0}
                writer.write_table(pa.Table.from_pylist(rows, schema))
        target.place.upload(f"{folder}/metadata.parquet", path)
    return len(there)


def _row(pair: Pair) -> dict[str, object]:
    row: dict[str, object] = {"prompt": pair.chosen.prompt, "caption": pair.chosen.caption}
    for name, clip in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        row |= {
            f"{name}_file_name": clip.file_name,
            f"{name}_rating": clip.rating,
            f"{name}_row_id": clip.row_id,
        }
    return row
