"""From rows in Python, or of a runner, to a table in the output, so that a later run can continue it."""

from __future__ import annotations

import io
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.output import store_of_job
from framefleet.jobs.job.schema import Job
from framefleet.pipeline.errors import FramefleetError, TableError, UserError, shown
from framefleet.pipeline.guards.redaction import USERINFO, public_url
from framefleet.pipeline.model.sources.integrity import sha256_of
from framefleet.pipeline.outputs.layout import DRIVERS, TABLES
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.plugin import inner_outputs
from framefleet.pipeline.rows.tables.file_reading import plain_field

log = logging.getLogger(__name__)
_URL_WITH_USER = r"^\s*[A-Za-z][A-Za-z0-9+.:-]*://\S*@"  # may be one: an @ may be of its path
_TAKEN = "give a table of pandas or Arrow, a Ray Dataset, dicts, a dict of lists, prompts, or a path"


@contextmanager
def stored_rows(job: Job | str | Path | Mapping[str, Any], rows: object) -> Iterator[Job]:
    """Yield the job with these rows as its table, which is written into the output under its digest.

    rows: a Ray Dataset, or what `arrow_of` takes; paths in them start in the current folder. Or a table's
    path or URL, which is used as it is. The written table is deleted again if the block raises a UserError
    before a run begins. Raises UserError.
    """
    with given_rows(job, rows) as (loaded, file):
        if file is None or loaded.table is None:
            yield loaded
            return
        store, name = store_of_job(loaded), f"{TABLES}/{loaded.table.rpartition('/')[2]}"
        if store.exists(name):
            yield loaded
            return
        folders = [Path(loaded.table).parent, *Path(loaded.table).parent.parents]
        new_folders = [] if "://" in loaded.table else [folder for folder in folders if not folder.exists()]
        drivers = _drivers_of(store)
        store.upload(name, Path(file))
        try:
            yield loaded
        except UserError:
            try:
                if _drivers_of(store) == drivers:
                    store.delete(name)
                    with suppress(OSError):  # something else was put there meanwhile
                        for folder in new_folders:
                            folder.rmdir()
            except FramefleetError as error:  # the next run uses the same rows again
                log.info("%s is left: %s", store.url_of(name), error.problem)
            raise


def _drivers_of(store: Store) -> list[str]:
    """Return the files of all runs of an output, and of its inner ones."""
    outputs = [store, *map(store.below, inner_outputs())]
    return [path for output in outputs for path in output.list(DRIVERS)]


@contextmanager
def naming_table(place: str) -> Iterator[None]:
    """Make a UserError of the block name `table=` instead of the file with the rows."""
    try:
        yield
    except UserError as error:
        if not any(place in text for text in error.args):
            raise
        texts = (text.replace(f"table {place}", "table=").replace(place, "table=") for text in error.args)
        raise type(error)(*texts) from None


@contextmanager
def given_rows(job: Job | str | Path | Mapping[str, Any], rows: object) -> Iterator[tuple[Job, str | None]]:
    """Yield the job with these rows as a table in its output, and the temporary file that has them.

    If the rows are a path, it is used as it is, and there is no file: None.
    """
    if isinstance(rows, str | Path):
        yield _job_of(job, str(rows)), None
        return
    with tempfile.TemporaryDirectory(prefix="framefleet-") as folder:
        file = Path(folder, "table.parquet")
        num_rows = 0
        writer: Any = None
        with ExitStack() as stack:
            for table in _tables_of(rows):
                for column_name, column in zip(table.column_names, table.columns, strict=True):
                    check_no_password(column_name, column)
                if writer is None:
                    writer = stack.enter_context(pa.parquet.ParquetWriter(file, table.schema))
                try:
                    writer.write_table(table.select(writer.schema.names).cast(writer.schema))
                except (pa.ArrowException, KeyError) as error:
                    problem = f"table= has blocks with other columns than the first: {error}"
                    raise TableError(problem, "give every row the same columns, of one type each") from None
                num_rows += len(table)
        if not num_rows:
            raise TableError("table= has no rows", "add some")
        name = f"{TABLES}/{sha256_of(file)[:32]}.parquet"
        loaded = _job_of(job, name)
        inputs = loaded.inputs.model_copy(update={"base": loaded.inputs.base or os.getcwd()})
        place = f"{loaded.output.rstrip('/')}/{name}"
        with naming_table(place), naming_table(str(file)):
            yield loaded.model_copy(update={"table": place, "inputs": inputs}), str(file)


def _tables_of(rows: object) -> Iterator[pa.Table]:
    """Yield rows as Arrow tables: a Ray Dataset block by block, always in the same order, others at once."""
    if not type(rows).__module__.startswith("ray.data."):
        yield arrow_of(rows)
        return
    dataset: Any = rows
    dataset.context.execution_options.preserve_order = True  # the same rows are the same table again
    for batch in dataset.iter_batches(batch_format="pyarrow", batch_size=None):
        yield batch.replace_schema_metadata(None)


def _job_of(job: Job | str | Path | Mapping[str, Any], table: str) -> Job:
    if isinstance(job, Job):
        return job.model_copy(update={"table": table})
    return load_job(job, table=table)


def arrow_of(rows: object) -> pa.Table:
    """Return rows as an Arrow table.

    rows: a pandas DataFrame, whose named index levels become columns; an Arrow table, or anything with an
    Arrow stream (polars, DuckDB); dicts, where a missing key is null; a dict of columns; or prompts.
    """
    if type(rows).__module__.partition(".")[0] == "pandas":
        table = _frame(rows)
    elif hasattr(rows, "__arrow_c_stream__"):
        schema = getattr(rows, "schema", None)
        for name, kind in schema.items() if isinstance(schema, Mapping) else ():
            if str(kind) == "Object":  # polars would hand over the addresses of such cells
                raise TableError(f"table=: the column {name!r} holds objects of Python", "write them as text")
        try:
            table = pa.table(rows)
        except pa.ArrowException as error:  # e.g. a single column, which has a stream too
            problem = f"table= of type {type(rows).__name__} cannot be converted: {error}"
            raise TableError(problem, _TAKEN) from None
        table = _without_views(table)
    elif isinstance(rows, Mapping):
        # pandas would join such Series by their index; lists have none.
        series = [(name, values) for name, values in rows.items() if hasattr(values, "iloc")]
        for name, values in series[1:]:
            if not values.index.equals(series[0][1].index):
                raise TableError(
                    f"table=: the columns {series[0][0]!r} and {name!r} are pandas Series with different "
                    "indexes",
                    "give a DataFrame, which joins them; or their `.tolist()`, if they are in the same order",
                )
        table = _of_columns({name: _cells(str(name), values) for name, values in rows.items()})
    else:
        table = _of_columns(_columns(rows))
    names = table.column_names
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise TableError(f"table= has the column {twice!r} twice", "rename one of them")
    return table.replace_schema_metadata(None)


def _without_views(table: pa.Table) -> pa.Table:
    """Return a table with plain categories and nested texts: Arrow cannot cast or select views of polars."""
    for number, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type) and pa.types.is_string_view(field.type.value_type):
            parts = [
                pa.DictionaryArray.from_arrays(chunk.indices, chunk.dictionary.cast(pa.large_string()))
                for chunk in table.column(number).chunks
            ]
            kind = pa.dictionary(field.type.index_type, pa.large_string())
            table = table.set_column(number, field.name, pa.chunked_array(parts, kind))
        elif pa.types.is_nested(field.type):
            try:
                cells = table.column(number).cast(plain_field(field).type)
            except pa.ArrowException as error:  # of categories in a list
                problem = f"table=: the column {field.name!r} cannot be converted: {error}"
                raise TableError(problem, "write it as text") from None
            table = table.set_column(number, field.name, cells)
    return table


def _cells(name: str, values: object) -> list[Any]:
    usual = "a dict of columns has a list of cells for each"
    if hasattr(values, "columns") or hasattr(values, "column_names"):
        problem = f"table=: {name} is a table of type {type(values).__name__}, and {usual}"
        raise TableError(problem, "give one of its columns; or give it alone, as `table=`")
    is_scalar = isinstance(values, str | bytes | Mapping | Set) or getattr(values, "shape", None) == ()
    if is_scalar or not isinstance(values, Iterable):
        raise TableError(
            f"table=: {name} is {shown(values)}, and {usual}",
            f"write {{{name!r}: [...]}}, or [{{{name!r}: ...}}] for one row; `defaults` are for all rows",
        )
    return list(values)


def check_no_password(name: str, cells: pa.ChunkedArray) -> None:
    """Raise TableError for a URL with a user or a password: the output stores cells as they are."""
    for texts in _texts_in(cells):
        may_be = pa.compute.match_substring_regex(texts, _URL_WITH_USER)
        if url := next(filter(USERINFO.search, texts.filter(may_be).to_pylist()), None):
            raise TableError(
                f"column {name!r} has {public_url(url)!r} with a user or a password",
                "remove them, as the output stores the rows; put credentials into the job's storage_options",
            )


def _texts_in(cells: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    """Yield all texts, also those in lists and structs."""
    kind = cells.type
    if pa.types.is_struct(kind):
        for number in range(kind.num_fields):
            yield from _texts_in(pa.compute.struct_field(cells, [number]))
    elif isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        yield from _texts_in(pa.compute.list_flatten(cells))
    elif pa.types.is_dictionary(kind):
        for chunk in cells.chunks:  # not cast, which Arrow cannot do with views
            yield from _texts_in(pa.chunked_array([chunk.dictionary]))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        yield cells.cast(pa.large_string())


def _frame(rows: Any) -> pa.Table:
    if not hasattr(rows, "columns"):
        problem = f"table= is of type pandas.{type(rows).__name__}"
        raise TableError(problem, 'give a DataFrame, e.g. by to_frame("prompt")')
    if levels := [name for name in rows.index.names if name is not None and name not in rows.columns]:
        rows = rows.reset_index(level=levels)  # as its `to_parquet` does
    names = [str(name) for name in rows.columns]
    if len({*names}) < len(names):  # for `arrow_of`, whose error names the column, unlike that of pandas
        return pa.table([pa.nulls(0)] * len(names), names=names)
    try:
        are_objects = [str(kind) == "object" for kind in rows.dtypes]
        others = rows.loc[:, [not is_object for is_object in are_objects]]
        typed = pa.Table.from_pandas(others, preserve_index=False)
    except (*_UNFIT, AttributeError, TypeError) as error:  # not a DataFrame; columns of odd types
        problem = f"table= of pandas cannot be converted: {error}"
        raise TableError(problem, "use columns of one type each") from None
    columns = iter(typed.columns)
    arrays = [
        _column(name, rows.iloc[:, place].tolist(), is_pandas=True) if is_object else next(columns)
        for place, (name, is_object) in enumerate(zip(names, are_objects, strict=True))
    ]
    return pa.table(arrays, names=names)


def _columns(rows: object) -> dict[Any, list[Any]]:
    if isinstance(rows, io.IOBase):
        raise TableError(
            "table= is an open file, whose format and place are not known here",
            "give the file's path; or a list of its prompts, as `[line.strip() for line in file]`",
        )
    if not isinstance(rows, Iterable) or isinstance(rows, bytes | Set):  # sets have no fixed order
        raise TableError(f"table= is of type {type(rows).__name__}", _TAKEN)
    listed = list(rows)
    for number, row in enumerate(listed):
        if not isinstance(row, str | Mapping) or isinstance(row, str) != isinstance(listed[0], str):
            raise TableError(f"table=: row {number} is {shown(row)}", _TAKEN)
    if listed and isinstance(listed[0], str):
        return {"prompt": listed}
    names = dict.fromkeys(name for row in listed for name in row)
    if None in names:  # of csv.DictReader
        number = next(number for number, row in enumerate(listed) if None in row)
        raise TableError(f"table=: row {number} has more cells than there are columns", "correct the row")
    return {name: [row.get(name) for row in listed] for name in names}


def _of_columns(columns: Mapping[Any, Sequence[Any]]) -> pa.Table:
    lengths = {name: len(values) for name, values in columns.items()}
    if len({*lengths.values()}) > 1:
        raise TableError(
            f"table= has columns of different lengths: {lengths}", "give each row a value or None"
        )
    arrays = [_column(str(name), values) for name, values in columns.items()]
    return pa.table(arrays, names=[str(name) for name in columns])


def _column(name: str, values: Sequence[Any], *, is_pandas: bool = False) -> pa.Array:
    """Return the cells as a column. is_pandas: NaN is null. Raises TableError if a cell would change."""
    plain = [str(value) if isinstance(value, PurePath) and not is_pandas else value for value in values]
    try:
        array = pa.array(plain, from_pandas=is_pandas)
    except _UNFIT:
        row = _first_unfit(plain, is_pandas)
        cell: Any = plain[row]
        fix = "give numbers, text or None, of one type in each column; an image or a video as its path or URL"
        if isinstance(cell, int) and not -(2**63) <= cell < 2**63:
            fix = "use at most 2**63 - 1, or give it as text"
        raise TableError(
            f"table=: row {row}: {name} is {shown(cell)}, which a table cannot hold"
            + f" in one column with {shown(plain[0])}" * (row > 0),
            fix,
        ) from None
    # Arrow takes the type of the first cells: dates drop the time of later cells, and times drop time zones
    # and nanoseconds.
    kinds = _kinds_in(plain)
    is_exact = len(kinds) == 1 and issubclass(next(iter(kinds)), bool | np.bool_ | np.integer | np.floating)
    if not (is_exact or kinds <= {str, int, float}):  # of these types, Arrow refuses what it would change
        for row, value in enumerate(plain):  # one by one: Python takes many times the memory of Arrow
            try:
                cell = array[row].as_py()
            except (OverflowError, ValueError):
                cell = "a value that Python cannot represent"
            if not _is_same(value, cell):
                raise TableError(
                    f"table=: row {row}: {name} is {shown(value)}, and would become {shown(cell)}, as the "
                    f"column has the type {array.type}",
                    "give cells of one type in each column, e.g. text",
                )
    return array


_UNFIT = (pa.ArrowException, OverflowError, UnicodeEncodeError, ValueError)
_NULLS = {"NaTType", "NAType", "NoneType"}  # by pandas' names


def _kinds_in(cells: Iterable[Any]) -> set[type]:
    """Return the types of cells, of what is in lists of them, and of the elements of arrays."""
    kinds = {*map(type, cells)}
    nested = kinds & {list, tuple, np.ndarray}
    for cell in cells if nested else ():
        if isinstance(cell, np.ndarray) and not cell.dtype.hasobject:
            kinds.add(cell.dtype.type)
        elif type(cell) in nested:
            kinds |= _kinds_in(cell)
    return kinds - nested - {type(None)}


def _is_same(value: Any, cell: Any) -> bool:
    if cell is None:
        is_nan = isinstance(value, float | np.generic) and bool(value != value)
        return is_nan or type(value).__name__ in _NULLS
    if isinstance(cell, dict) and isinstance(value, Mapping):
        return all(_is_same(value.get(key), inner) for key, inner in cell.items())
    if isinstance(cell, list) and (isinstance(value, Sequence) or hasattr(value, "__array__")):
        return len(value) == len(cell) and all(map(_is_same, value, cell))
    try:
        is_equal = bool(value == cell) or (value != value and cell != cell)
        return is_equal and isinstance(cell, bool) == (type(value).__name__ in ("bool", "bool_"))
    except (TypeError, ValueError):
        return False


def _first_unfit(values: Sequence[Any], is_pandas: bool) -> int:
    """Return the index of the first value that does not fit those before it, by bisection."""
    sound, unfit = 0, len(values)
    while unfit - sound > 1:
        middle = (sound + unfit) // 2
        try:
            pa.array(values[:middle], from_pandas=is_pandas)
            sound = middle
        except _UNFIT:
            unfit = middle
    return sound
