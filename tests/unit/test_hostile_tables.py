"""Tables that want to do harm: refused in our words, row by row where it can be, in bounded memory."""

from __future__ import annotations

import io
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from framefleet import Output, Store, TableError
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.outputs.parts.parts import PartWriter
from framefleet.pipeline.outputs.parts.records import record_schema, values_of
from framefleet.pipeline.rows.tables import file_reading, json_lines, table as tables, table_files
from framefleet.pipeline.rows.tables.formats import TO_UTF_8
from framefleet.pipeline.rows.tables.row_cells import repaired_row
from framefleet.pipeline.rows.tables.row_plan import argument_columns, plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow, InvalidRow
from framefleet.pipeline.rows.tables.table import open_table
from tests.outputs import records_in
from tests.rows import RECORD, record

LATIN = "ein café".encode("latin-1")


def as_text(cells: list[bytes]) -> pa.Array:
    return pa.array(cells, pa.binary()).view(pa.string())


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def parquet_of(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def planned(path: Path, spec: PipelineSpec) -> list[CheckedRow | InvalidRow]:
    """Return every row, and write what its batch carries as records and refused rows have it."""
    table = open_table(str(path), arguments=argument_columns(spec, {}))
    plan = plan_rows(table.schema, spec)
    rows = []
    for first, batch in table.batches():
        for row in plan.rows(first, batch):
            rows.append(row)
            one = batch.slice(row.index - first, 1)
            written(repaired_row(one) if isinstance(row, InvalidRow) else one)
    return rows


def written(row: pa.RecordBatch) -> None:
    pq.read_table(io.BytesIO(parquet_of(pa.Table.from_batches([row])))).to_pylist()


def problems(rows: list[CheckedRow | InvalidRow]) -> list[str]:
    return [str(problem) for row in rows if isinstance(row, InvalidRow) for problem in row.problems]


def refusal(path: Path) -> TableError:
    with pytest.raises(TableError) as caught:
        for _ in open_table(str(path)).batches():
            pass
    assert caught.value.fix
    return caught.value


FAR = " " * 91  # of 12,000 lines the last is beyond the first megabyte, by which Arrow knows the columns


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"prompt": "a"}\nnull\n', "line 2 is not an object"),
        ("[" * 60_000, "line 1: '[' is not an object"),
        ('[{"prompt": ' + "[" * 60_000, "line 1: an object or array has no end"),
        ('[{"prompt": ' + "[" * 60_000 + "]" * 60_000 + "}]", "line 1: it nests more than 64 levels deep"),
        ('{"prompt": "a"}\n{"prompt": ' + "[" * 60_000 + "}\n", "line 2: it nests more than 64"),
        (f'{{"prompt": "a"{FAR}}}\n' * 12_000 + '{"a":' * 60_000, "line 12001: it nests more than 64"),
        ('[\n{"prompt": "a"}\n, 5]', "line 3: '5' is not an object"),
        ('{"prompt": "a"}\n{"prompt": "b", "prompt": "c"}', "line 2: it has the key 'prompt' twice"),
        ('{"prompt": "' + " " * json_lines.MAX_LINE, "line 1 is longer than 16,777,216 bytes"),
        ('{"\\ud800": 1}', "the name of a column is '\ufffd\ufffd\ufffd', but it is not UTF-8"),
        ('{"prompt": "a", "x": {}}', "the column 'x' has the type struct<>, which records cannot store"),
        ('{"prompt": "a", "x": ' + "[" * 60 + "]" * 60 + "}", "the column 'x' has the type list<"),
        (json.dumps({"prompt": "a", "x" * 300: 1}), "is longer than 256 characters"),
        (json.dumps({f"x{i}": 1 for i in range(10_001)}), "more than 10,000 columns"),
        ("", "is empty"),
    ],
)
def test_lines_and_columns_that_no_row_has_are_named(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(text)
    assert problem in refusal(tmp_path / "t.jsonl").problem


def large_dictionary(size: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), ["x" * size])


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"prompt": ["a", "b"], "x": ["y", "x" * (33 << 20)]}, "row 1 takes 34,603,"),
        ({"prompt": large_dictionary(50_000_000)}, "takes more than 2 GiB"),
        (
            {"prompt": ["a"], "at": pa.array([0], pa.timestamp("us", "Mars/Olympus"))},
            "the column 'at' has the type timestamp[us, tz=Mars/Olympus]",
        ),
    ],
    ids=["row", "file", "zone"],
)
def test_tables_that_no_memory_or_record_holds_are_refused(
    columns: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    path = write_parquet(tmp_path / "t.parquet", columns, compression="zstd", store_schema="at" in columns)
    assert problem in refusal(path).problem


@pytest.mark.parametrize(
    "content",
    [
        lambda: _nested_schema(100_000),
        lambda: parquet_of(pa.table({"prompt": ["a"]}).select([])),
    ],
    ids=["levels", "no columns"],
)
def test_what_is_no_table_is_refused(content: Callable[[], bytes], tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(content())
    refusal(tmp_path / "t.parquet")


def test_text_that_is_no_utf8_refuses_its_row_alone(tmp_path: Path, wan: PipelineSpec) -> None:
    cells = {"prompt": as_text([b"a cat", LATIN, b"a dog"]), "note": as_text([LATIN, b"x", b"y"])}
    rows = planned(write_parquet(tmp_path / "t.parquet", cells), wan)
    assert [row.index for row in rows if isinstance(row, CheckedRow)] == [2]
    assert problems(rows) == [
        f"{name} is 'ein caf\ufffd', but it is not UTF-8" for name in ("note", "prompt")
    ]
    assert {fix for row in rows if isinstance(row, InvalidRow) for _, fix in row.messages()} == {TO_UTF_8}
    tags = {"prompt": ["a", "b"], "tags": pa.ListArray.from_arrays([0, 1, 2], as_text([b"a", LATIN]))}
    for name, content in (
        ("tags.parquet", parquet_of(pa.table(tags))),
        ("t.csv", b"prompt,seed\na cat,1\n" + LATIN + b",2\n"),
        ("latin.jsonl", b'{"prompt": "a cat"}\n{"prompt": "' + LATIN + b'"}\n'),
        ("half.jsonl", b'{"prompt": "a cat"}\n{"prompt": "\\ud83d"}\n'),
    ):
        (tmp_path / name).write_bytes(content)
        first, second = planned(tmp_path / name, wan)
        assert isinstance(first, CheckedRow) and "it is not UTF-8" in problems([second])[0], name


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_the_name_of_a_column_that_is_no_utf8_is_told(name: str, tmp_path: Path) -> None:
    if name == "t.csv":
        content = b"prompt,caf\xe9\na,b\n"
    else:
        write_parquet(tmp_path / name, {"prompt": ["a"], "cafe": ["b"]}, store_schema=False)
        content = (tmp_path / name).read_bytes().replace(b"cafe", b"caf\xe9")
    (tmp_path / name).write_bytes(content)
    assert "the name of a column is 'caf\ufffd', but it is not UTF-8" in refusal(tmp_path / name).problem


def test_prompts_of_a_megabyte_that_a_dictionary_repeats_are_refused_one_by_one(
    tmp_path: Path, wan: PipelineSpec
) -> None:
    cells = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 60, pa.int32()), ["x" * 1_000_000, "a cat"])
    path = write_parquet(tmp_path / "t.parquet", {"prompt": cells}, compression="zstd", store_schema=False)
    assert path.stat().st_size < 1000
    table = open_table(str(path))
    assert max(batch.nbytes for _, batch in table.batches()) <= file_reading.MAX_BATCH_BYTES
    plan = plan_rows(table.schema, wan)
    rows = [row for first, batch in table.batches() for row in plan.rows(first, batch)]
    assert len(rows) == 120 and [isinstance(row, InvalidRow) for row in rows[:4]] == [True, False] * 2
    assert problems(rows)[0].endswith("but it is longer than 65,536 bytes")
    assert len(problems(rows)[0]) < 200


def test_more_rows_or_columns_than_a_job_may_have_are_refused(
    tmp_path: Path, wan: PipelineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.csv").write_text("prompt," + ",".join(f"c{i}" for i in range(500)) + "\na" + ",1" * 500)
    assert len(planned(tmp_path / "t.csv", wan)) == 1, "a table may be wide"
    monkeypatch.setattr(tables, "MAX_ROWS", 100)
    write_parquet(tmp_path / "t.parquet", {"prompt": ["a"] * 101})
    (tmp_path / "t.csv").write_text("prompt\n" + "a\n" * 101)
    for name in ("t.parquet", "t.csv"):
        assert "has more than 100 rows" in refusal(tmp_path / name).problem


EXOTIC = {
    "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
    "decimal": pa.array([1, None], pa.decimal256(60, 3)),
    "half": pa.array(np.array([1, 2], np.float16)),
    "view": pa.array(["a", None], pa.string_view()),
    "bytes": pa.array([b"\xff", None]),
    "uuid": pa.array([b"0" * 16, None], pa.uuid()),
    "json": pa.array(["{}", None], pa.json_()),
    "duration": pa.array([1, 2**62], pa.int64()).view(pa.duration("s")),
    "timestamp": pa.array([1, 2**62], pa.int64()).view(pa.timestamp("us", "Europe/Berlin")),
    "date": pa.array([1, 2**31 - 1], pa.int32()).view(pa.date32()),
    "nulls": pa.array([None, None]),
    "list of nulls": pa.array([[], [None]]),
    "list of dictionary": pa.array([["a"], []], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    "fixed": pa.array([[1, 2], None], pa.list_(pa.int8(), 2)),
    "list of views": pa.array([["a", None], []], pa.list_(pa.string_view())),
    "large list of views": pa.array([[b"a", None], []], pa.large_list(pa.binary_view())),
    "fixed list of views": pa.array([["a", None], None], pa.list_(pa.string_view(), 2)),
    "map of views": pa.array([[("k", "a")], None], pa.map_(pa.string(), pa.string_view())),
    "struct of views": pa.array([{"y": ["a"]}, None], pa.struct([("y", pa.list_(pa.string_view()))])),
    "list view": pa.array([["a"], None], pa.list_view(pa.string())),
    "large list view": pa.array([["a"], None], pa.large_list_view(pa.string_view())),
}
TENSORS = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((2, 3), np.float32))


@pytest.mark.parametrize("name", EXOTIC)
def test_columns_of_rare_types_are_carried_or_their_rows_refused(
    name: str, tmp_path: Path, wan: PipelineSpec
) -> None:
    rows = planned(write_parquet(tmp_path / "t.parquet", {"prompt": ["a", "b"], name: EXOTIC[name]}), wan)
    assert isinstance(rows[0], CheckedRow)
    assert all(problem.endswith("but it is out of range") for problem in problems(rows))
    assert len(problems(rows)) == (name in {"duration", "timestamp", "date"})
    path = write_parquet(tmp_path / "t.parquet", {"prompt": ["a", "b"], "num_frames": EXOTIC[name]})
    try:  # a column that is read
        assert planned(path, wan)
    except TableError as error:
        assert "column 'num_frames' holds" in error.problem


def test_a_column_of_tensors_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "t.parquet", {"prompt": ["a", "b"], "latents": TENSORS})
    problem = refusal(tmp_path / "t.parquet").problem
    assert "the column 'latents' has the type extension<arrow.fixed_shape_tensor" in problem


@pytest.mark.parametrize("name", EXOTIC)
def test_columns_of_rare_types_come_back_from_records(name: str, tmp_path: Path) -> None:
    table = open_table(str(write_parquet(tmp_path / "t.parquet", {"x": EXOTIC[name]})))
    ((_, batch),) = table.batches()
    writer = PartWriter(Store(str(tmp_path)), "records", record_schema(table.schema), run="1")
    for number in range(len(batch)):
        writer.add(batch.slice(number, 1), values_of(record(number)))
    writer.flush()
    (records,) = Output(Store(str(tmp_path))).records(["x"])
    assert records["x"].combine_chunks().equals(batch["x"])


def test_damaged_files_are_refused_or_read_and_nothing_else(tmp_path: Path, wan: PipelineSpec) -> None:
    for seed in range(200):
        rng = random.Random(seed)
        name, content = rng.choice(_seeds())
        broken = bytearray(content)
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = rng.randrange(len(broken))
            broken[at : at + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(9))
        (tmp_path / name).write_bytes(broken)
        try:
            planned(tmp_path / name, wan)
        except TableError as error:
            assert error.fix


def test_a_reader_that_crashes_is_an_error_about_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from framefleet.pipeline.guards.sandbox import Sandboxes

    monkeypatch.setattr(table_files, "_READERS", Sandboxes("tests.no_such_module", max_silence_s=10.0))
    write_parquet(tmp_path / "t.parquet", {"prompt": ["a"]})
    assert "the process that read it crashed (exit code 1)" in refusal(tmp_path / "t.parquet").problem


def test_carried_columns_of_large_rows_are_written_in_small_parts(tmp_path: Path) -> None:
    batch = pa.record_batch({"note": ["x" * (8 << 20)]})
    writer = PartWriter(Store(str(tmp_path)), "records", record_schema(batch.schema), run="1")
    values = {name: getattr(RECORD, name) for name in RECORD.__dataclass_fields__}
    for count in range(1, 9):
        writer.add(batch, values | {"row_id": f"{count:032x}"})
        assert writer.due(0.0) is (count == 8)
    writer.flush()
    assert records_in(Store(str(tmp_path))).num_rows == 8


def _seeds() -> list[tuple[str, bytes]]:
    cells = {"prompt": ["a cat", "猫", "x" * 300], "seed": [1, None, 3], "tags": [["a"], None, []]}
    found = []
    for options in ({}, {"compression": "zstd", "use_dictionary": False}):
        buffer = io.BytesIO()
        pq.write_table(pa.table(cells), buffer, **options)
        found.append(("t.parquet", buffer.getvalue()))
    rows = pa.table(cells).to_pylist()
    found.append(("t.jsonl", "\n".join(map(json.dumps, rows)).encode()))
    return [*found, ("t.csv", b'prompt,seed\na cat,1\n"\xe7\x8c\xab, 2",\nb,3\n')]


def _nested_schema(depth: int) -> bytes:
    """Return a Parquet file of one column in so many groups, in Thrift's compact protocol."""
    group = b"\x35\x02\x18\x01g\x15\x02\x00"  # repetition: optional, name, one child
    elements = b"\x48\x01r\x15\x02\x00" + group * depth + b"\x15\x02\x25\x02\x18\x01x\x00"
    count = depth + 2
    size = b"".join(
        bytes([count >> shift & 127 | (128 if count >> shift > 127 else 0)]) for shift in (0, 7, 14)
    )
    footer = b"\x15\x02\x19\xfc" + size + elements + b"\x16\x00\x19\x0c\x00"
    return b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1"
