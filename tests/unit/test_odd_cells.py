"""A cell that does not fit its column refuses its row alone, wherever in the table it stands."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from framefleet.jobs.render.survey import Survey
from framefleet.pipeline.errors import TableError
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.rows.sweeps.settings import Sweep
from framefleet.pipeline.rows.sweeps.sweep import open_sweep
from framefleet.pipeline.rows.tables.json_lines import JsonLines
from framefleet.pipeline.rows.tables.row_cells import ODD_CELLS, repaired_row
from framefleet.pipeline.rows.tables.row_plan import argument_columns, plan_rows
from framefleet.pipeline.rows.tables.rows import InvalidRow
from framefleet.pipeline.rows.tables.table import open_table

BEYOND = 400
LONG = "p" * 3000  # so many of such prompts are more than the megabyte from which types are taken


def told(path: Path, spec: PipelineSpec) -> list[str]:
    """Return what is said of refused rows; what is kept of each can be written."""
    table = open_table(str(path), arguments=argument_columns(spec, {}))
    plan = plan_rows(table.schema, spec)
    survey = Survey()
    for first, batch in table.batches():
        rows = [*plan.rows(first, batch)]
        assert [row.index for row in rows] == [*range(first, first + batch.num_rows)]
        refused = [row for row in rows if isinstance(row, InvalidRow)]
        repaired = [repaired_row(batch.slice(row.index - first, 1)) for row in refused]
        assert all(row.schema.equals(table.schema) for row in repaired)
        survey.add(refused)
    survey.find_places(table)
    return survey.invalid_lines()


def lines(*rows: dict[str, Any], before: int = 0) -> str:
    usual = json.dumps({"prompt": LONG, "k": 1})
    return "\n".join([*[usual] * before, *map(json.dumps, rows)])


def test_a_number_among_texts_is_told_with_line_value_and_fix(tmp_path: Path, wan: PipelineSpec) -> None:
    rows = '{"prompt": "a", "note": "x"}\n\n{"prompt": "b", "note": 5}\n{"prompt": "c", "note": "y"}'
    (tmp_path / "t.jsonl").write_text(rows)
    (line,) = told(tmp_path / "t.jsonl", wan)
    assert line == "row 1 (line 3): note is 5, but it is not a text; put it in quotes"


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("odd", "k is 'odd', but the column holds whole numbers"),
        (1.5, "k is 1.5, but the column holds whole numbers"),
        (2**70, f"k is {2**70}, but records cannot store it"),
        ([1], "k is [1], but the column holds whole numbers"),
    ],
)
def test_so_is_what_comes_after_the_types(cell: Any, said: str, tmp_path: Path, wan: PipelineSpec) -> None:
    (tmp_path / "t.jsonl").write_text(lines({"prompt": "b", "k": cell}, {"prompt": "c"}, before=BEYOND))
    (line,) = told(tmp_path / "t.jsonl", wan)
    assert line.startswith(f"row {BEYOND} (line {BEYOND + 1}): {said}")


def test_a_key_that_comes_late_is_one_refused_row(tmp_path: Path, wan: PipelineSpec) -> None:
    (tmp_path / "t.jsonl").write_text(lines({"prompt": "b", "sed\ud800": 7}, {"prompt": "c"}, before=BEYOND))
    (line,) = told(tmp_path / "t.jsonl", wan)
    assert "sed\\ud800 is 7, but the first 1 MB of the table have no such key" in line


def test_what_most_cells_are_is_the_type_wherever_the_odd_is(tmp_path: Path, wan: PipelineSpec) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "note": 5, "tags": ["x"], "o": {"b": 1}, "id": 2**60},
        {"prompt": "b", "note": "x", "tags": [1], "o": {"b": 2}, "id": 2**60 + 1},
        {"prompt": "c", "note": "y", "tags": ["y"], "o": {"b": "z"}, "id": 0.5},
    ]
    (tmp_path / "t.jsonl").write_text(lines(*rows))
    problems = [line.partition(", but")[0].partition(": ")[2] for line in told(tmp_path / "t.jsonl", wan)]
    assert problems == ["note is 5", "tags is [1]", "o is {'b': 'z'}", "id is 0.5"]


@pytest.mark.parametrize(
    ("usual", "odd", "held"),
    [
        ("1", "x", "whole numbers"),
        ("1.5", "x", "numbers"),
        ("true", "maybe", "true and false"),
        ("2026-01-01", "soon", "dates"),
        ("12:30:00", "25:00:00", "times"),
        ("2026-01-01 12:30:00", "soon", "times"),
        ("2026-01-01 12:30:00.500", "2026-01-01T12:30:00", "times"),
        ("1", "01", "whole numbers"),
        ("1.5", "1e5", "numbers"),
    ],
)
def test_so_it_is_in_csv(usual: str, odd: str, held: str, tmp_path: Path, wan: PipelineSpec) -> None:
    rows = ["prompt,k"] + [f"{LONG},{usual}"] * BEYOND * 2 + [f"b,{odd}", f"c, {usual} ", "d,"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    (line,) = told(tmp_path / "t.csv", wan)
    where = f"row {BEYOND * 2} (line {BEYOND * 2 + 2})"
    assert line.startswith(f"{where}: k is {odd!r}, but the column holds {held}")


def test_every_row_that_a_sweep_makes_of_an_odd_one_is_refused(tmp_path: Path, wan: PipelineSpec) -> None:
    (tmp_path / "t.jsonl").write_text(lines({"prompt": "b", "k": "odd"}, {"prompt": "c", "k": 2}, before=1))
    table = open_table(str(tmp_path / "t.jsonl"), arguments=argument_columns(wan, {}))
    sweep = Sweep.model_validate({"seed": "0-1"})
    swept = open_sweep(sweep, table, kinds={"seed": "int"}, others=(), columns={}, storage_options={})
    plan = plan_rows(swept.schema, wan)
    rows = [row for first, batch in swept.batches() for row in plan.rows(first, batch)]
    assert [row.index for row in rows if isinstance(row, InvalidRow)] == [2, 3]


def test_a_row_of_many_odd_cells_is_told_by_some(tmp_path: Path, wan: PipelineSpec) -> None:
    sound = {"prompt": "a"} | {f"c{i}": 1 for i in range(100)}
    odd = {"prompt": "a"} | {f"c{i}": "x" for i in range(100)}
    (tmp_path / "t.jsonl").write_text(lines(sound, sound, odd))
    assert len(told(tmp_path / "t.jsonl", wan)) == 8


@pytest.mark.parametrize("cell", ["x", "7", '[["n"]]', "[[1, {}, [], null]]", "[" * 9999, 7, None])
def test_a_strangers_file_may_say_anything_of_odd_cells(cell: Any, tmp_path: Path, wan: PipelineSpec) -> None:
    pq.write_table(pa.table({"prompt": ["a"], ODD_CELLS: [cell]}), tmp_path / "t.parquet")
    pq.write_table(pa.table({ODD_CELLS: [cell]}), tmp_path / "alone.parquet")
    with suppress(TableError):
        assert all(len(line) < 999 for line in told(tmp_path / "t.parquet", wan))
    with suppress(TableError):
        assert [batch.num_rows for _, batch in open_table(str(tmp_path / "alone.parquet")).batches()] == [1]


def test_batches_without_odd_cells_have_the_schema_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(lines(before=3))
    table = open_table(str(tmp_path / "t.jsonl"))
    assert all(batch.schema.equals(table.schema) for _, batch in table.batches())
    assert ODD_CELLS not in table.schema.names


_CELLS = st.one_of(
    st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), min_size=1),
    st.lists(st.none() | st.integers(-(2**50), 2**50) | st.floats(allow_nan=False), min_size=1),
    st.lists(st.none() | st.lists(st.none() | st.booleans()), min_size=1),
    st.lists(st.fixed_dictionaries({"b": st.integers(0, 9)}, optional={"a": st.text("xy")}), min_size=1),
)


@given(_CELLS)
def test_columns_of_one_type_have_the_one_that_arrow_gives_them(cells: list[Any]) -> None:
    content = "\n".join(json.dumps({"n": 1, "a": cell}) for cell in cells).encode()
    table = JsonLines(io.BufferedReader(io.BytesIO(content)), None, {})
    assert table.schema.field("a").type == pa.array(cells).type
