"""What is where in an output: who writes it, who may delete it, and what makes it count.

The driver is the process that has the lock: that of `render`, `retry`, `repair` or `compact`. Only what a
part in records/ names is committed; all else is found again, made again or swept. `forget` also has the
lock, and takes its rows out of whatever is listed here.

    path                          written by         deleted by      counts
    job.json                      driver, once       nobody          its job goes on here; parts repeat it
    <section>.json                driver, once       nobody          as job.json, of a `JobKind`
    drivers/<epoch>.json          its driver         nobody          the newest has the lock, and seals parts
    drivers/<epoch>.stop          stop               nobody          while its driver runs, which then ends
    drivers/<epoch>.pause         pause              resume          while its driver runs, which then waits
    rows/part-*.parquet           driver, at start   driver          always: the table as it was last read
    rows/_written.json, _survey.json  driver     driver          while rows/ is as they say
    records/part-*.parquet        driver, compact    driver, repair  as parts/seals.py says; of a row the last
    failures/part-*.parquet       driver             driver          for rows without a record
    logs/part-*.parquet           driver             anybody         never: what happened to rows, for people
    invalid/part-*.parquet        driver             driver          always: rows that cannot be rendered
    scores/part-*.parquet         score, driver, judge  the next  as parts/seals.py says; of a clip the last
    columns/<epoch>.json          score, driver, judge  nobody    has its columns to itself, and seals parts
    clips/<2 hex>/<row_id>*       worker             driver, repair  where a record names it
    clips/<2 hex>/<row_id>*.xmp   worker             driver, repair  never: the label of the clip of that name
    extras/<row_id>*.safetensors  worker             driver, repair  where a record names it
    derived/<2 hex>/<row_id>*     worker             driver, repair  where a record names it
    derived/<2 hex>/<row_id>*.xmp  worker            driver, repair  never: as the label of a clip
    previews/<2 hex>/<row_id>*    worker, gallery    driver, repair  never: made from its clip
    pending/<row_id>-<tag>.json   worker             driver          until its row has a record
    checkpoints/<row_id>*         worker             driver          until its row has ended
    apart/<16 hex>.json           driver             nobody          its rows are neither adopted nor batched
    <name>/                       its driver         -               an output of its own (`inner_outputs`)
    <name>                        a plugin           -               as the plugin says (`Plugin.files`)
    tables/<digest>.parquet       Python             nobody          the job's table
    tables/added-*.parquet        add                nobody          always: rows after the table's own
    weights/<sha256>.safetensors  fleet()            fleet()         while its workers use them
    embeddings/, .probes/         worker             anybody         never: computed again
    damaged/<path>                repair             anybody         never: kept for people to look at
    forgotten.json                forget             nobody          always: rows not to render again

Names of a row's files begin with its row_id, and each has one content. A row's clip is
`clips/ab/<row_id>.mp4`. An attempt that is not repeatable, or that another version of a codec encoded, may
find other bytes there; it takes the name with the first eight digits of its digest. So nothing has to be
deleted to make room, least of all what a record names.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from framefleet.pipeline.errors import not_ours
from framefleet.pipeline.outputs.media.media_settings import MediaFormat
from framefleet.pipeline.plugin import clip_suffixes

CLAIM = "job.json"
DRIVERS, ROWS, RECORDS = "drivers", "rows", "records"
SCORES, COLUMN_LOCKS = "scores", "columns"
FAILURES, INVALID, LOGS = "failures", "invalid", "logs"
CLIPS, EXTRAS, PREVIEWS, DERIVED = "clips", "extras", "previews", "derived"
PENDING, CHECKPOINTS, APART = "pending", "checkpoints", "apart"
CHOSEN, TABLES = "chosen", "tables"
ANSWERS, PROMPT_TABLES = "answers", "prompts"
ADDED = "added-"  # how files in tables/ begin that `add` wrote
WEIGHTS = "weights"
PROBES, DAMAGED = ".probes", "damaged"
FORGOTTEN = "forgotten.json"


TAG = 8  # digits
LABEL_SUFFIX = ".xmp"
_NAMED = re.compile(
    r"(?:(?:clips|previews|derived)/(?P<folder>[0-9a-f]{2})|extras)/(?P<row_id>(?(folder)(?P=folder)[0-9a-f]{30}|[0-9a-f]{32}))"
    r"(?:-[0-9a-f]{8}|-[0-9a-f]{64})?\.[a-z0-9.]+",
    re.ASCII,
)
_SUFFIXES = {f".{format}" for format in get_args(MediaFormat)}


def clip_path(row_id: str, suffix: str, tag: str = "") -> str:
    """Return the path of a row's clip; 256 folders keep listings short."""
    return f"{CLIPS}/{row_id[:2]}/{row_id}{tag and f'-{tag}'}{suffix}"


def derived_path(row_id: str, suffix: str, tag: str = "") -> str:
    """Return the path of the second clip that a file step made from a row's clip."""
    return f"{DERIVED}{clip_path(row_id, suffix, tag).removeprefix(CLIPS)}"


def extras_path(row_id: str, tag: str = "") -> str:
    """Return the path of the arrays that a row's pipeline returned besides its clip."""
    return f"{EXTRAS}/{row_id}{tag and f'-{tag}'}.safetensors"


def preview_path(clip: str) -> str:
    """Return the path of a clip's preview. clip: the path of the clip."""
    folder, _, name = clip.removeprefix(f"{CLIPS}/").rpartition("/")
    return f"{PREVIEWS}/{folder}/{name.partition('.')[0]}.webp"


def label_path(clip: str) -> str:
    """Return the path of a clip's label, for a format that has no place for it."""
    return f"{clip}{LABEL_SUFFIX}"


def tags(media_sha256: str, *others: str | None) -> tuple[str, str, str]:
    """Return the tags that the names of an attempt's files may have, in the order in which they are tried.

    The second distinguishes attempts at the row: eight digits of the clip's SHA-256, or of all digests if
    there are other files (arrays, a derived clip). The third has all digits, in case a damaged file has the
    second name.
    """
    digest = media_sha256
    if digests := [other for other in others if other is not None]:
        digest = hashlib.sha256(" ".join([media_sha256, *digests]).encode()).hexdigest()
    return "", digest[:TAG], digest


def row_named_by(path: str) -> str | None:
    """Return the row_id in the name of a file in clips/, derived/, previews/, extras/; None for others."""
    name = _NAMED.fullmatch(path)
    return name["row_id"] if name else None


def recorded_path(record: Mapping[str, Any], where: str) -> str:
    """Return the path of a record's clip, even if the output was moved. Raises JobError for another row's."""
    row_id, path = record["row_id"], str(record["path"])
    suffix = f".{path.partition('.')[2]}"
    is_clip = path.startswith((f"{CLIPS}/", f"{DERIVED}/"))
    is_clip = is_clip and (suffix in _SUFFIXES or suffix in clip_suffixes())
    if not is_clip or row_named_by(path) != row_id:
        raise not_ours(where, f"the clip of {row_id} is at {path!r}")
    return path


def dated(place: str | Path) -> str:
    """Return the place of an output, with today's date in UTC instead of {date}."""
    return str(place).replace("{date}", datetime.now(UTC).date().isoformat())
