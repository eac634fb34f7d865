"""Rows that Python gives in place of a table: what is taken, where it is kept, and how a job goes on."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

import framefleet
from framefleet import JobError, Store, StoreError, TableError
from framefleet.api.jobs import load_job, read_claim
from framefleet.jobs.job.output import base_of
from framefleet.jobs.render import python_table
from framefleet.jobs.render.claim import claim
from framefleet.jobs.render.python_table import arrow_of
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.render.survey import survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.rows.tables.index import RowIndex
from tests.jobs import job_values, with_rows, write_job

ROWS = [{"prompt": "a fox", "seed": 1}, {"prompt": "a cat", "seed": 2}]


def values(folder: Path, **more: Any) -> dict[str, Any]:
    found = job_values(folder / "none", folder / "out") | more
    del found["table"]
    return found


def claimed_rows(job: Any) -> int:
    """Make the output the job's; return how many rows it would render."""
    with closing(resolve_job(job, Callback())) as resolved, closing(RowIndex()) as index:
        claim(resolved)
        return survey_rows(resolved, index, Callback()).num_rows


def claimed_table(folder: Path) -> str | None:
    return read_claim(Store(str(folder / "out"))).job.table


@pytest.mark.parametrize(
    "given",
    [
        ROWS,
        iter(ROWS),
        {"prompt": ["a fox", "a cat"], "seed": [1, 2]},
        pd.DataFrame(ROWS, index=[7, 8]),
        pd.DataFrame(ROWS).set_index("prompt"),
        pd.DataFrame(ROWS).set_index(["prompt", "seed"]),
        pa.Table.from_pylist(ROWS),
        pa.RecordBatch.from_pylist(ROWS),
        pa.Table.from_pylist(ROWS).to_reader(),
    ],
)
def test_rows_of_all_kinds_are_one_table(given: object) -> None:
    assert arrow_of(given).to_pylist() == ROWS


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([], "no rows"),
        (7, "of type int"),
        ([1, 2], "row 0 is 1"),
        (["a", {"prompt": "b"}], "row 1 is {'prompt': 'b'}"),
        ([{"seed": 1}, {"seed": 2}, {"seed": "x"}], "row 2: seed is 'x'"),
        ([{"seed": 2**70}], "row 0: seed"),
        ([{"image": object()}], "row 0: image is <object"),
        ({"prompt": ["a"], "seed": [1, 2]}, "different lengths"),
        (pd.Series([1]), "of type pandas.Series"),
        ({"a", "b"}, "of type set"),  # in another order each time
        ({"prompt": {"a", "b"}, "seed": [1, 2]}, "a list of cells for each"),
        ({"prompt": "fox"}, "prompt is 'fox', and a dict of columns has a list of cells"),
        ({"prompt": ["fox"], "seed": 5}, "seed is 5, and a dict of columns"),
        ({1: ["fox"], "1": ["cat"]}, "the column '1' twice"),
        (pd.DataFrame([["fox", 1]], columns=["prompt", "prompt"]), "the column 'prompt' twice"),
        (pa.chunked_array([["fox"]]), "of type ChunkedArray cannot be converted"),
        (pa.table([["fox"], [1]], names=["prompt", "prompt"]), "the column 'prompt' twice"),
        ({"prompt": np.array("fox")}, "a dict of columns"),
        ({"prompt": pd.DataFrame({"prompt": ["fox"]})}, "prompt is a table of type DataFrame"),
        ({"prompt": pd.Series(["a"]), "seed": pd.Series([1], index=[1])}, "Series with different indexes"),
        (pl.DataFrame({"prompt": ["a"], "x": pl.Series([object()], dtype=pl.Object)}), "objects of Python"),
        (pl.DataFrame({"x": [["a"]]}, schema={"x": pl.List(pl.Categorical)}), "'x' cannot be converted"),
        (io.StringIO("fox\n"), "an open file"),
        (csv.DictReader(["prompt,seed", "a,1", "b,2,3"]), "row 1 has more cells"),
    ],
)
def test_what_is_no_table_is_refused(given: object, problem: str, tmp_path: Path) -> None:
    with pytest.raises(TableError) as caught:
        framefleet.plan({"output": tmp_path / "out", "model": "m"}, table=given)
    assert problem in caught.value.problem and caught.value.fix


def test_prompts_are_a_column_and_missing_keys_null(tmp_path: Path) -> None:
    assert arrow_of(["a fox", "a cat"]).to_pylist() == [{"prompt": "a fox"}, {"prompt": "a cat"}]
    assert arrow_of([{"prompt": "a"}, {"prompt": "b", "seed": 1}])["seed"].to_pylist() == [None, 1]
    mixed = arrow_of([{"image": Path("a.png"), "scale": 5}, {"scale": 2.5}])
    assert mixed.to_pylist()[0] == {"image": "a.png", "scale": 5.0}
    assert arrow_of(pd.DataFrame({"guidance_scale": [1.0, None]}))["guidance_scale"].null_count == 1
    for nothing, value in (
        (np.float64("nan"), "a"),
        (np.datetime64("NaT", "s"), np.datetime64("2024-01-01", "s")),
        (np.timedelta64("NaT", "s"), np.timedelta64(1, "s")),
        (pd.NaT, pd.Timestamp("2024-01-01")),
        (pd.NA, "a"),
        (None, "a"),
        (float("nan"), True),
    ):
        frame = pd.DataFrame({"seed": [1, 2], "x": pd.Series([nothing, value], dtype=object)})
        table = arrow_of(frame)
        assert table.column_names == ["seed", "x"] and table["seed"].to_pylist() == [1, 2]
        assert table["x"].is_null().to_pylist() == [True, False], nothing
    for kind in (pl.Categorical, pl.Enum(["x"])):  # of which a table holds texts
        categories = pl.DataFrame(ROWS).with_columns(pl.lit("x").cast(kind).alias("kind"))
        assert claimed_rows(with_rows(values(tmp_path), categories)) == len(ROWS)
    shots = pl.DataFrame(ROWS).with_columns(shots=pl.Series([[{"view": "left"}], None]))
    assert claimed_rows(with_rows(values(tmp_path), shots)) == len(ROWS)


def test_the_output_keeps_the_rows_and_goes_on_from_them(tmp_path: Path) -> None:
    job = with_rows(values(tmp_path), ROWS)
    assert claimed_rows(job) == 2
    assert Path(job.table or "").parent == tmp_path / "out/tables"
    assert claimed_table(tmp_path) == job.table == with_rows(values(tmp_path), ROWS).table
    shutil.move(tmp_path / "out", tmp_path / "moved")  # with its rows
    table = tmp_path / "moved/tables" / Path(job.table or "").name
    moved = load_job(values(tmp_path) | {"output": str(tmp_path / "moved"), "table": str(table)})
    assert claimed_rows(moved) == 2


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_other_rows_may_follow_and_a_named_table_may_not(scheme: str, tmp_path: Path) -> None:
    named = {**values(tmp_path), "output": f"{scheme}{tmp_path / 'out'}"}
    claimed_rows(with_rows(named, ROWS))
    (tmp_path / "out/clips").mkdir()
    (tmp_path / "out/clips/x.mp4").touch()
    more = with_rows(named, [*ROWS, {"prompt": "rain"}])
    assert claimed_rows(more) == 3
    assert claimed_table(tmp_path) == more.table
    arrow_of(ROWS).to_pandas().to_csv(tmp_path / "t.csv")
    with pytest.raises(JobError, match=r"table: tables there, .*t\.csv here"):
        claimed_rows(with_rows(values(tmp_path), tmp_path / "t.csv"))


@pytest.mark.parametrize("is_there", [False, True])
def test_rows_that_are_refused_leave_nothing(is_there: bool, tmp_path: Path) -> None:
    if is_there:
        claimed_rows(with_rows(values(tmp_path), ROWS))
    before = sorted(tmp_path.rglob("*"))
    rows = [{"prompt": "a", "seed": 1}, {"prompt": "b", "seed": -1}]
    calls = [
        lambda: framefleet.render(values(tmp_path), table=rows),
        lambda: framefleet.add(values(tmp_path) | {"table": claimed_table(tmp_path)}, rows),
    ]
    for call in calls[: 1 + is_there]:
        with pytest.raises(TableError) as caught:
            call()
        assert caught.value.problem.splitlines()[0] == "table=: 1 of 2 rows cannot be rendered"
        assert caught.value.problem.splitlines()[1].startswith("row 1: seed is -1")
        assert sorted(tmp_path.rglob("*")) == before


def test_a_store_that_fails_meanwhile_does_not_hide_what_is_wrong_with_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise StoreError("it does not answer", "wait")

    caplog.set_level("INFO")
    monkeypatch.setattr(Store, "delete", fails)
    with pytest.raises(TableError, match="1 of 1 row cannot be rendered"):
        framefleet.render(values(tmp_path), table=[{"prompt": "b", "seed": -1}])
    assert ".parquet is left: it does not answer" in caplog.text


@pytest.mark.parametrize(
    "given",
    [
        {"image": "https://me:pa55word@host/a.png"},
        {"note": ["s3://a/b", "ftp://me:pa55word@host/a"]},
        {"note": {"from": "https://pa55word@host/a"}},
    ],
)
def test_rows_with_a_password_are_not_written_down(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TableError, match="with a user or a password") as caught:
        with_rows(values(tmp_path), [{"prompt": "a", **given}])
    assert "pa55word" not in str(caught.value)
    assert not (tmp_path / "out/tables").exists()
    with_rows(values(tmp_path), [{"prompt": "mail a://me@host or b@c", "note": "https://host/a@b"}])


def test_paths_of_rows_start_where_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    job = with_rows(values(tmp_path), ROWS)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert base_of(job) == str(tmp_path / "here")
    claimed_rows(with_rows(values(tmp_path, inputs={"base": "cats"}), ROWS))
    claimed = json.loads((tmp_path / "out/job.json").read_text())["job"]
    assert claimed["inputs"]["base"] == str(tmp_path / "elsewhere/cats")


@pytest.mark.parametrize("has_sweep", [True, False])
def test_rows_stand_beside_a_job_file_and_a_sweep(has_sweep: bool, tmp_path: Path) -> None:
    sweep: Mapping[str, Any] = {"sweep": {"guidance_scale": [1, 3]}} if has_sweep else {}
    job = write_job(tmp_path / "job.yaml", values(tmp_path, **sweep))
    assert claimed_rows(with_rows(job, ["a fox", "a cat"])) == (4 if has_sweep else 2)


NOON = datetime(2024, 1, 1, 12)


@pytest.mark.parametrize(
    "cells",
    [
        [date(2024, 1, 1), NOON],  # Arrow would drop the time
        [NOON, NOON.replace(tzinfo=UTC)],  # the zone
        [NOON.replace(tzinfo=timezone(timedelta(hours=5))), NOON],
        [time(12, tzinfo=UTC)],
        [pd.Timestamp(1)],  # and nanoseconds
        [b"a", "a"],
        [[{1: 2}, {3}]],
        [{1, 2}],
        [pd.NaT],
    ],
)
def test_a_cell_that_does_not_come_back_from_its_column_is_refused(cells: list[Any]) -> None:
    with pytest.raises(TableError, match=r"table=: row [01]: x is"):
        arrow_of({"x": cells})
    frame = pd.DataFrame({"x": pd.Series(cells, dtype=object)})
    try:
        read = arrow_of(frame)["x"].to_pylist()
    except TableError as error:
        assert error.fix
    else:
        assert read == [None if cell is pd.NaT else cell for cell in cells]


@pytest.mark.parametrize(
    "cells",
    [
        [np.zeros(8, np.float32)] * 9,
        [np.arange(8), None],
        [[0.5, 1.0], (2.0,), []],
        [[[0.5], [1, 2]], [[2]]],
        [np.float16(0.5)] * 9,
    ],
)
def test_numbers_are_not_compared(cells: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_table, "_is_same", None)
    for rows in ({"x": cells}, pd.DataFrame({"x": cells})):
        assert len(arrow_of(rows)) == len(cells)


@pytest.mark.parametrize("late", [True, [True], NOON])
def test_a_cell_that_changes_is_named_however_late_it_comes(late: object) -> None:
    first: Any = [0.5] if isinstance(late, list) else 0.5 if late is True else date(2024, 1, 1)
    with pytest.raises(TableError, match="table=: row 3000: x is"):
        framefleet.plan({"output": "out", "model": "m"}, table={"x": [first] * 3000 + [late]})


@given(
    st.lists(
        st.one_of(
            *(st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.floats(), st.text(max_size=3)),
            *(st.binary(max_size=2), st.dates(), st.timedeltas(), st.floats(width=32).map(np.float32)),
            *(clock(timezones=st.none() | st.just(UTC)) for clock in (st.times, st.datetimes)),
            *(st.decimals(allow_nan=False, allow_infinity=False), st.integers(0, 2**64 - 1).map(np.uint64)),
            st.lists(st.integers(0, 3) | st.floats(0, 1) | st.booleans() | st.dates(), max_size=2),
            st.lists(st.binary(max_size=1) | st.text(max_size=1), max_size=2),
            st.dictionaries(st.sampled_from("ab"), st.integers(0, 3) | st.text(max_size=1), max_size=2),
        ),
        max_size=3,
    )
)
def test_cells_of_python_come_back_or_are_refused(cells: list[Any]) -> None:
    for given_rows in ({"x": cells}, pd.DataFrame({"x": pd.Series(cells, dtype=object)})):
        try:
            read = arrow_of(given_rows)["x"].to_pylist()
        except TableError as error:
            assert error.fix
            continue
        for cell, back in zip(cells, read, strict=True):
            if isinstance(cell, dict):
                assert back == {key: cell.get(key) for key in back} and cell.keys() <= back.keys()
            elif isinstance(cell, float | np.float32) and cell != cell:
                assert back is None or back != back
            elif isinstance(cell, list):
                assert [(type(one) is bool, one) for one in back] == [
                    (type(one) is bool, one) for one in cell
                ]
            else:
                assert back == cell and isinstance(back, bool) == isinstance(cell, bool)
