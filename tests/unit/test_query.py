"""A condition in SQL chooses rows, opens nothing, and is told by its name what it gets wrong."""

from __future__ import annotations

import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from framefleet import Store
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.sandbox import Sandboxes
from framefleet.pipeline.outputs import query
from framefleet.pipeline.outputs.query import check_where, columns_in, rows_where
from framefleet.plugins.scores.clip_scores import OWN_SCORES
from framefleet.plugins.scores.section import ScoresSection
from tests.commands import command
from tests.outputs import UNDER_WAY, write_driver
from tests.small_output import rendered

TABLE = pa.table(
    {
        "prompt": pa.array(["a red ball", "a blue cube", None]).dictionary_encode(),
        "sharpness": [0.5, 0.1, None],
        "seed": pa.array([0, 1, 2**63 - 1], pa.int64()),
        "odd name": ["x", "y", "z"],
        "Seed": [7, 8, 9],  # DuckDB tells no case apart
    }
)


def chosen(condition: str, table: pa.Table = TABLE) -> list[int]:
    (found,) = rows_where(iter([table]), condition)
    assert found.schema == table.schema
    return found["Seed"].to_pylist()


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("sharpness > 0.4", [7]),
        ("sharpness IS NULL OR prompt LIKE '%cube%'", [8, 9]),
        ("\"odd name\" IN ('z', 'x')", [7, 9]),
        ("SHARPNESS <= .1", [8]),
        ("seed IN (SELECT * FROM range(2)) -- a note", [7, 8]),
        ("seed = 9223372036854775807", [9]),
        ("true", [7, 8, 9]),
        ("NULL", []),
    ],
)
def test_rows_come_as_they_are_and_in_their_order(condition: str, rows: list[int]) -> None:
    assert chosen(condition) == rows


@pytest.mark.parametrize(
    "condition",
    [
        "sharpness >",
        "",
        "true; DROP TABLE records",
        "true) UNION SELECT 1 --",
        "true, false",
        "true ORDER BY seed",
        "avg(sharpness) > 0",
        "row_number() OVER () = 1",
        "sharpness > (SELECT avg(sharpness) FROM TABLE)",
        "(SELECT count(*) FROM TABLE_OF_TESTS) > 0",
        "prompt",
        "\ud800",
        "'",
    ],
)
def test_what_is_no_condition_on_a_row_is_refused(condition: str) -> None:
    with pytest.raises(JobError, match="where: ") as caught:
        chosen(condition)
    assert caught.value.fix


TABLE_OF_TESTS = TABLE  # a variable that DuckDB would find in the frames of its callers


def test_no_file_and_no_network_is_asked(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for source in (f"read_csv('{secret}')", f"'{secret}'", "'https://127.0.0.1:1/a.parquet'", "glob('/*')"):
        with pytest.raises(JobError):
            chosen(f"(SELECT count(*) FROM {source}) > 0")
    for setting in ("SET enable_external_access = true", "COPY (SELECT 1) TO 'x'", "INSTALL httpfs"):
        with pytest.raises(JobError):
            chosen(setting)


@pytest.mark.parametrize(
    "condition",
    ["list_sum(range(3000000000)) > 0", "len(repeat('a', 4000000000)) > 0", "list_sum(range(seed)) > 0"],
)
def test_memory_is_bounded(condition: str) -> None:
    before = _most_bytes()
    with pytest.raises(JobError, match="where: "):
        chosen(condition)
    assert chosen("true") == [7, 8, 9]
    query._SANDBOXES.close()
    assert _most_bytes() < max(4 << 30, before + (1 << 30))


def _most_bytes() -> int:
    """Return the peak of this process, with which its children begin, or of theirs."""
    return (
        max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        << 10
    )


def test_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = Sandboxes("framefleet.pipeline.outputs.query", max_silence_s=2.0)
    monkeypatch.setattr(query, "_SANDBOXES", boxes)
    with pytest.raises(JobError, match="it takes more than 2 s"):
        chosen(
            "(SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range % 7 = 1) > 0"
        )


def test_a_column_that_is_not_there_is_told_with_the_nearest() -> None:
    with pytest.raises(JobError, match="no column 'sharpnes'") as caught:
        check_where(TABLE.schema, '"sharpnes" > 0.4')
    assert caught.value.fix == "write a text in single quotes: 'sharpnes'; or did you mean 'sharpness'?"
    with pytest.raises(JobError, match="no column 'a ball'") as caught:
        check_where(TABLE.schema, 'prompt = "a ball"')
    assert caught.value.fix == "write a text in single quotes: 'a ball'"
    with pytest.raises(JobError) as caught:
        check_where(TABLE.schema, "accepted")
    assert caught.value.fix == "only outputs of a job with `until:` have it"
    with pytest.raises(JobError) as caught:
        check_where(TABLE.schema, "zzzz > 0.4")
    assert "prompt, seed, sharpness" in caught.value.fix


@pytest.mark.parametrize(
    ("condition", "fix"),
    [
        ("prompt > 1", "prompt is text: to use it as a number, write CAST(prompt AS DOUBLE)"),
        ("1.5 <= prompt and seed = 7", "prompt is text: to use it"),
        ("prompt between 1 and 2", "prompt is text: to use it"),
        ("prompt + 1 > 2", "prompt is text: to use it"),
        ("seed >", "write it as"),
    ],
)
def test_a_text_that_is_compared_with_a_number_is_named(condition: str, fix: str) -> None:
    with pytest.raises(JobError, match="is not a condition") as caught:
        check_where(TABLE.schema, condition)
    assert caught.value.fix.startswith(fix)


@pytest.mark.parametrize(
    "arguments", [["report", "--accepted", "promt > 1"], ["sheet", "-o", "{to}", "--where", "promt > 1"]]
)
def test_a_column_that_is_not_there_is_looked_for_in_all(tmp_path: Path, arguments: list[str]) -> None:
    store = Store(str(tmp_path / "out"))
    rendered(store, num_rows=1)
    write_driver(store, progress=replace(UNDER_WAY, figures={"worker_seconds/denoise": 1.0}), ended=True)
    name, *options = [text.format(to=tmp_path / "sheet.png") for text in arguments]
    ended = command(name, tmp_path / "out", *options)
    place = options[-2].removeprefix("--")
    assert f"error: {place}: there is no column 'promt'\nhint: did you mean 'prompt'?" in ended.stderr


def test_a_score_that_was_not_measured_is_named_with_the_command_that_measures_it() -> None:
    for condition in ("flicker < 1", "nsfw < 1"):
        with pytest.raises(JobError, match="no column") as caught:
            check_where(TABLE.schema, condition)
        assert caught.value.fix.startswith("add it first: framefleet score OUTPUT --scores ")
        with pytest.raises(JobError, match="no column") as caught:  # of a job that is not rendered yet
            check_where(TABLE.schema, condition, source="it to `scores:`")
        assert caught.value.fix == "add it to `scores:`"
    with pytest.raises(JobError, match="no column") as caught:
        check_where(TABLE.schema, "sharpnes > 1", source="it to `scores:`")
    assert caught.value.fix == "did you mean 'sharpness'? Or add it to `scores:`"
    with pytest.raises(JobError) as caught:
        check_where(TABLE.schema, '"flicker" < 1')
    assert caught.value.fix.endswith("; or add it first: framefleet score OUTPUT --scores flicker")
    assert {*ScoresSection.added_by} >= {*OWN_SCORES}


def test_columns_that_a_condition_does_not_name_may_be_of_any_type_and_name() -> None:
    odd = TABLE.append_column("half", pa.array([1.0, 2.0, 3.0]).cast(pa.float16()))
    odd = odd.append_column("wide", pa.array([1, 2, 3]).cast(pa.decimal256(60, 2)))
    for name in ("__row", "__ROW", "__row_"):
        odd = odd.append_column(name, pa.array([2, 2, 99], pa.int64()))
    odd = odd.append_column("half", pa.nulls(3))  # twice
    assert chosen("sharpness > 0.4", odd) == [7]
    assert chosen('"__row_" = 2', odd) == [7, 8]


def test_columns_that_a_condition_may_be_about_are_found_by_their_names() -> None:
    assert columns_in("SHARPNESS > 1 and seed=1", TABLE.schema) == ["sharpness", "seed"]


@pytest.mark.parametrize("condition", ["SEED = 1", "seed = 1 AND Seed = 7"])
def test_names_that_sql_takes_for_one_are_refused_unless_their_case_says_which(condition: str) -> None:
    assert chosen("Seed = 8") == [8]
    with pytest.raises(JobError, match="'seed' and 'Seed', which SQL takes for one"):
        chosen(condition)


def test_the_example_of_picks_says_what_is_missing(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "examples/pick.py"
    ended = subprocess.run([sys.executable, script, tmp_path / "none"], capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stderr.startswith(f"{tmp_path / 'none'}: IO Error: No files found")
