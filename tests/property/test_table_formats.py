"""What stands in a table is what rows and records have, whoever wrote it: equal, or refused."""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas
import polars
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from hypothesis import given, settings, strategies as st

from framefleet.pipeline.errors import Refused, TableError
from framefleet.pipeline.model.specs.check import check_seed
from framefleet.pipeline.rows.tables.row_cells import odd_cells
from framefleet.pipeline.rows.tables.table import open_table
from tests.long import examples

_LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_PROMPTS = st.one_of(
    st.text(_LETTERS, min_size=1),
    st.text('a"\\,;\t\n 1', min_size=1, max_size=8),
    st.sampled_from(
        ['"Stop" says the sign', 'a 5" disk', '"', '\\"OPEN\\"', "a\nb", "=1+1", "NA", "null", "NaN"]
    ),
)
# Texts that libraries read as something else.
_TEXTS = st.one_of(
    _PROMPTS,
    st.from_regex(r"[+-]?[0-9]{1,24}", fullmatch=True),
    st.from_regex(r"-?[0-9]{1,4}[.,][0-9]{1,3}", fullmatch=True),
    st.from_regex(r"[0-9]{1,3}[eE][+-]?[0-9]{1,4}", fullmatch=True),
    st.sampled_from(
        ["0001", "0x1f", "-0", "1.10", "True", "TRUE", "true", "no", "12:30", "2024-01-05", "inf"]
    ),
    st.sampled_from(["2024-01-05T10:00:00Z", "2024-01-05 10:00:00", ' ="0001"', "1 000", "1_000", ""]),
)
_NUMBERS = st.one_of(
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4),
    st.lists(st.none() | st.floats(allow_nan=False), min_size=1, max_size=4),
    st.lists(st.none() | st.booleans(), min_size=1, max_size=4),
)
_SEEDS = st.integers(0, 2**63 - 1) | st.sampled_from([2**11, 2**24 + 1, 2983456121, 2**53 - 1, 2**53 + 1])


def _is_same(read: Any, written: Any) -> bool:
    """Tell whether a cell is what was written: a number may be one, or the text that it was written as."""
    if read is None or written is None:
        return read is written
    if isinstance(read, str) and not isinstance(written, str):
        return read in (str(written), str(written).lower(), repr(written)) or float(read) == float(written)
    if isinstance(written, str) and not isinstance(read, str):
        return str(read) == written or _as_written(read) == written.strip()
    return bool(read == written)


def _as_written(read: Any) -> str:
    return str(int(read) if isinstance(read, float) and read.is_integer() else read)


def _read(content: bytes, name: str) -> list[dict[str, Any]] | None:
    """Return the rows of a file; None where it, or one of its rows, is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        try:
            batches = [batch for _, batch in open_table(str(path), arguments={"seed": "int"}).batches()]
        except TableError as error:
            assert error.problem and error.fix
            return None
        if any(odd_cells(batch) for batch in batches):
            return None
        return [row for batch in batches for row in batch.to_pylist()]


def _check(rows: list[dict[str, Any]], content: bytes, name: str) -> None:
    read = _read(content, name)
    if read is not None:
        assert len(read) == len(rows), (content, read)
        for found, written in zip(read, rows, strict=True):
            assert found.keys() == written.keys()
            for column in written:
                assert _is_same(found[column], written[column]), (content, found, written)


def _by_hand(rows: list[dict[str, Any]], separator: str, *, quoting: Any = csv.QUOTE_MINIMAL) -> bytes:
    """Write a CSV as spreadsheets do: null is nothing, empty text is quoted."""
    sink = io.StringIO()
    writer = csv.writer(sink, delimiter=separator, lineterminator="\r\n", quoting=quoting)
    writer.writerow([*rows[0]])
    for row in rows:
        cells = ["" if cell is None else cell for cell in row.values()]
        if "" in row.values():  # which Python's writer does not tell from null
            texts = ['""' if cell == "" else "" if cell is None else _quoted(cell) for cell in row.values()]
            sink.write(separator.join(texts) + "\r\n")
        else:
            writer.writerow(cells)
    return sink.getvalue().encode("utf-8")


def _quoted(cell: Any) -> str:
    return '"' + str(cell).replace('"', '""') + '"'


def _by_arrow(rows: list[dict[str, Any]], delimiter: str) -> bytes:
    sink = io.BytesIO()
    pa.csv.write_csv(pa.Table.from_pylist(rows), sink, pa.csv.WriteOptions(delimiter=delimiter))
    return sink.getvalue()


def _by_pandas(rows: list[dict[str, Any]], **options: Any) -> bytes:
    frame = pandas.DataFrame(rows, dtype=object)
    return str(frame.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, **options)).encode()


def _by_duckdb(rows: list[dict[str, Any]], options: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as database:
        database.register("rows", pa.Table.from_pylist(rows))
        database.execute(f"COPY rows TO '{folder}/t' ({options})")
        return Path(folder, "t").read_bytes()


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def _written(write: Callable[[io.BytesIO], object]) -> bytes:
    sink = io.BytesIO()
    write(sink)
    return sink.getvalue()


def _json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


_WRITERS: dict[str, tuple[str, Callable[[list[dict[str, Any]]], bytes]]] = {
    "spreadsheet": ("t.csv", lambda rows: _by_hand(rows, ",")),
    "spreadsheet, semicolons": ("t.csv", lambda rows: "\ufeffsep=;\r\n".encode() + _by_hand(rows, ";")),
    "TSV": ("t.tsv", lambda rows: _by_hand(rows, "\t")),
    "all quoted": ("t.csv", lambda rows: _by_hand(rows, ",", quoting=csv.QUOTE_ALL)),
    "pyarrow CSV": ("t.csv", lambda rows: _by_arrow(rows, ",")),
    "pyarrow TSV": ("t.tsv", lambda rows: _by_arrow(rows, "\t")),
    "pyarrow Parquet": ("t.parquet", _parquet),
    "pandas CSV": ("t.csv", _by_pandas),
    "DuckDB CSV": ("t.csv", lambda rows: _by_duckdb(rows, "FORMAT csv, HEADER, FORCE_QUOTE *")),
    "DuckDB Parquet": ("t.parquet", lambda rows: _by_duckdb(rows, "FORMAT parquet")),
    "DuckDB JSON": ("t.json", lambda rows: _by_duckdb(rows, "FORMAT json, ARRAY true")),
    "JSON lines": ("t.jsonl", _json_lines),
    "JSON array": ("t.json", lambda rows: json.dumps(rows, indent=2).encode()),
    "pandas Parquet": ("t.parquet", lambda rows: pandas.DataFrame(rows).to_parquet(index=False)),
    "pandas JSON lines": (
        "t.jsonl",
        lambda rows: str(pandas.DataFrame(rows).to_json(orient="records", lines=True)).encode(),
    ),
    "Polars CSV": ("t.csv", lambda rows: polars.DataFrame(rows).write_csv(quote_style="always").encode()),
    "Polars Parquet": ("t.parquet", lambda rows: _written(polars.DataFrame(rows).write_parquet)),
    "Polars JSON": ("t.json", lambda rows: _written(polars.DataFrame(rows).write_json)),
    "Polars JSON lines": ("t.jsonl", lambda rows: _written(polars.DataFrame(rows).write_ndjson)),
}


# They do not tell null from empty text, or write numbers as something else in a column of objects.
_WITHOUT_EMPTY = {"pandas CSV", "all quoted", "DuckDB CSV", "Polars CSV"}


@settings(deadline=None, max_examples=examples(150))
@given(
    prompts=st.lists(_PROMPTS, min_size=1, max_size=4),
    texts=st.lists(_TEXTS, min_size=4, max_size=4),
    writer=st.sampled_from([*_WRITERS]),
)
def test_texts_come_back_whoever_wrote_them(prompts: list[str], texts: list[str], writer: str) -> None:
    if writer in _WITHOUT_EMPTY:
        texts = [text or "x" for text in texts]
    rows = [{"prompt": prompt, "note": text} for prompt, text in zip(prompts, texts, strict=False)]
    name, write = _WRITERS[writer]
    _check(rows, write(rows), name)


@settings(deadline=None, max_examples=examples(100))
@given(numbers=_NUMBERS, writer=st.sampled_from([*_WRITERS]))
def test_numbers_come_back_whoever_wrote_them(numbers: list[Any], writer: str) -> None:
    if writer in _WITHOUT_EMPTY or writer.startswith(("DuckDB", "pandas")):
        # DuckDB has no column of nulls alone, and pandas makes floats of whole numbers beside null.
        numbers = [number for number in numbers if number is not None] or [1]
    if writer == "pandas JSON lines":  # which writes ten digits of a number
        numbers = [number for number in numbers if not isinstance(number, float)] or [1]
    if writer.startswith("Polars JSON"):  # which writes null for what JSON has no number for
        numbers = [0.5 if isinstance(number, float) and math.isinf(number) else number for number in numbers]
    rows = [{"prompt": f"a {place}", "number": number} for place, number in enumerate(numbers)]
    name, write = _WRITERS[writer]
    _check(rows, write(rows), name)


@settings(deadline=None, max_examples=examples(100))
@given(
    seeds=st.lists(_SEEDS, min_size=1, max_size=3),
    kind=st.sampled_from(
        [pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.decimal128(38, 0), pa.string()]
    ),
)
def test_a_seed_is_the_one_that_was_written_or_refused(seeds: list[int], kind: pa.DataType) -> None:
    from framefleet.pipeline.rows.tables.row_plan import _exactly
    from framefleet.pipeline.rows.tables.rows import _values

    try:
        cells = pa.array([Decimal(seed) for seed in seeds], pa.decimal128(38, 0)).cast(kind, safe=False)
    except pa.ArrowException:
        cells = pa.array([float(seed) for seed in seeds]).cast(kind, safe=False)
    check = _exactly(check_seed, "int", kind)
    for cell, seed in zip(_values(cells), seeds, strict=True):
        read = check(cell)
        assert isinstance(read, Refused) or read == seed, (kind, cell, seed)


def test_dates_come_back_as_they_are_written() -> None:
    rows = [{"prompt": "a", "day": "2024-01-05", "at": "2024-01-05 10:00:00", "minutes": "12:30"}]
    assert _read(_by_hand(rows, ","), "t.csv") == [
        {
            "prompt": "a",
            "day": datetime.date(2024, 1, 5),
            "at": datetime.datetime(2024, 1, 5, 10),
            "minutes": "12:30",
        }
    ]
