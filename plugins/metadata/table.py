"""Make a table from a folder of pictures and clips, with a row for each file that has settings."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from os import cpu_count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from framefleet.api.clips import Inputs
from framefleet.api.commands import Watch, wait_for
from framefleet.api.errors import InputError, JobError, TableError, count_text
from framefleet.api.jobs import Job, below, store_of_job
from framefleet.api.outputs import DriverLock, Store
from framefleet.api.texts import canonical_json, public_url
from framefleet.pipeline.errors import StoreConflict
from framefleet.pipeline.outputs.embedded_text import FIELD
from framefleet.pipeline.rows.tables.table import (
    HIDDEN_PREFIXES,
    MAX_LISTED,
    endings_of,
    media_column,
    visible,
)
from framefleet.plugins.metadata.a1111 import OMITTED
from framefleet.plugins.metadata.cells import USUAL, Cell, Told, Unreadable
from framefleet.plugins.metadata.reading import MetadataReader
from framefleet.plugins.metadata.section import FOLDER

_PATH = f"{FOLDER}/rows.parquet"
_SHOWN = 5  # files in a message
_MAX_COLUMNS = 200
_TYPES: dict[type, pa.DataType] = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}

File = tuple[str, Told | str]  # its path in the folder, and its settings or why there are none


def table_place(job: Job) -> str:
    return below(job, _PATH)


def store_table(job: Job, watch: Watch) -> str:
    """Write the rows of the job's folder into its output, unless they are there; return their place."""
    store = store_of_job(job)
    with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
        content = Path(write_table(job, watch, folder)).read_bytes()
        try:
            store.create(_PATH, content)
        except StoreConflict:  # its folder had other files before
            with DriverLock(store, renders=False):  # no driver is reading it
                store.write(_PATH, content)
    return table_place(job)


def write_table(job: Job, watch: Watch, folder: str) -> str:
    """Write the rows into this folder; return the file.

    Raises TableError if no file has settings, or if some have none and the job does not skip invalid rows.
    """
    if job.table is None:
        raise JobError("read_metadata: the job has no table", "name the folder: `table: DIR` or --images DIR")
    shown = public_url(job.table)
    wait_for(watch, f"reading the metadata of the files in {shown}")
    files = list(_read_all(job.table, job, watch))
    rows = [(path, told) for path, told in files if isinstance(told, Told)]
    numbered = enumerate(files)
    unread = [f"file {number} ({path}): {told}" for number, (path, told) in numbered if isinstance(told, str)]
    count = f"{len(unread):,} of {count_text(len(files), 'file')} in {shown}"
    reasons = "; ".join(unread[:_SHOWN]) + (f"; and {len(unread) - _SHOWN:,} more" if unread[_SHOWN:] else "")
    if unread and (not rows or job.on_invalid == "fail"):
        fix = "leave `read_metadata` out, to start from the pictures themselves"
        if rows:
            fix = "move them to another folder, or set `on_invalid: skip` to leave them out"
        raise TableError(f"{count} have no usable metadata: {reasons}", fix)
    if unread:
        watch.say(f"read_metadata: left out: {count}: {reasons}")
    # Arguments that have values of the job's sweep alone.
    factors = job.sweep.factors | (job.sweep.sample.over if job.sweep.sample else {})
    plain = [name for name, factor in factors.items() if factor.file is None]
    replaced = [name for name in plain if f"{{{name}}}" not in factors[name].model_dump_json()]
    if names := [name for name in replaced if any(name in told.cells for _, told in rows)]:
        line = f"the sweep's values replace those of the files: {', '.join(names)}"
        watch.say(f"note: read_metadata: {line}")
    for name in (name for name in USUAL if name not in replaced):
        # framefleet's own files always have a seed, and lack what a model has no argument for.
        may_lack = [row for row in rows if row[1].program != FIELD or name == "seed"]
        if lacking := [path for path, told in may_lack if name not in told.cells]:
            line = f"{count_text(len(lacking), 'file')} without {name} that can be told, e.g. {lacking[0]}"
            watch.say(f"note: read_metadata: {line}")
    if inputs := [path for path, told in rows if told.others.get("inputs")]:
        line = f"{count_text(len(inputs), 'file')} made from inputs that it does not have, e.g. {inputs[0]}"
        watch.say(f"note: read_metadata: {line}")
    if omitted := {name: path for path, told in rows for name in told.others.get(OMITTED, ())}:
        line = ", ".join(f"{name} of {path}" for name, path in [*omitted.items()][:_SHOWN])
        watch.say(f"note: read_metadata: left out, since they could name files or code: {line}")
    pq.write_table(_table(rows, replaced), file := Path(folder, "rows.parquet"))
    return str(file)


def _read_all(place: str, job: Job, watch: Watch) -> Iterator[File]:
    """Yield every picture and clip of a folder, in order; report how many other files it has."""
    store = Store(place, job.storage_options if "://" in place else {})
    below = store.list("")
    paths = visible(below, "", media_column)
    others = endings_of({*visible(below, "", str, hidden=HIDDEN_PREFIXES)} - {*paths})
    if not paths or len(paths) > MAX_LISTED:
        what = f"has more than {MAX_LISTED:,}" if paths else "is not a folder of"
        problem = f"read_metadata: {public_url(place)} {what} pictures and clips"
        problem += f", but of {others}" if others and not paths else ""
        raise TableError(problem, "name the folder that they are in")
    if others:
        watch.say(f"note: read_metadata: not read: {others}")
    inputs = Inputs([place], job.storage_options, base=place, outage_s=job.retries.store_outage_s)
    with closing(MetadataReader()) as reader, ThreadPoolExecutor(cpu_count()) as threads:
        try:
            yield from zip(paths, threads.map(partial(_read, inputs, reader), paths), strict=True)
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise


def _read(inputs: Inputs, reader: MetadataReader, path: str) -> Told | str:
    try:
        return reader.read(inputs.read(path))
    except InputError as error:
        return error.problem
    except Unreadable as error:
        return str(error)


def _table(rows: Sequence[tuple[str, Told]], replaced: Collection[str]) -> pa.Table:
    names = list(dict.fromkeys(["prompt", *USUAL, *(name for _, told in rows for name in told.cells)]))
    names = [name for name in names if name not in replaced]
    if len(names) > _MAX_COLUMNS:
        problem = f"read_metadata: the files have values of {len(names):,} arguments"
        raise TableError(problem, "take those that you do not know out of the folder")
    columns = {name: _column([told.cells.get(name) for _, told in rows]) for name in names}
    columns["file"] = pa.array([path for path, _ in rows], pa.string())
    columns["made_with"] = pa.array([told.program for _, told in rows], pa.string())
    columns["metadata"] = pa.array([canonical_json(dict(told.others)) for _, told in rows], pa.string())
    return pa.table(columns)


def _column(cells: Sequence[Cell]) -> pa.Array:
    """Return a column; of several kinds of values as text, from which the checks of rows read any."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if len(kinds) > 1:
        texts = (cell if isinstance(cell, str | None) else json.dumps(cell) for cell in cells)
        return pa.array(texts, pa.string())
    return pa.array(cells, _TYPES[kinds.pop()] if kinds else pa.string())
