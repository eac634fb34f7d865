"""A condition in SQL chooses rows, opens nothing, and is told by its name what it gets wrong."""

from __future__ import annotations

import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import framefleet
from framefleet import JobError, Store
from framefleet.pipeline.outputs import query
from framefleet.pipeline.outputs.query import check_where, rows_where
from framefleet.plugins.scores.clip_scores import OWN_SCORES
from framefleet.plugins.scores.plugin import PLUGIN as SCORES
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


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three rows; of one the score is missing."""
    folder = tmp_path_factory.mktemp("queried")
    carried: dict[str, Any] = {"prompt": ["a red ball", "a blue cube", None]}
    carried |= {"odd name": ["x", "y", "z"], "large": [0, 1, 2**63 - 1]}
    rendered(Store(str(folder)), 3, carried=carried, scores={"sharpness": [0.5, 0.1, None]})
    return str(folder)


def chosen(condition: str, table: pa.Table = TABLE) -> list[int]:
    (found,) = rows_where(iter([table]), condition)
    assert found.schema == table.schema
    return found["Seed"].to_pylist()


def refusal(output: str, condition: str) -> JobError:
    with pytest.raises(JobError, match="where: ") as caught:
        framefleet.read_records(output, where=condition)
    return caught.value


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("sharpness > 0.4", [0]),
        ("sharpness IS NULL OR prompt LIKE '%cube%'", [1, 2]),
        ("\"odd name\" IN ('z', 'x')", [0, 2]),
        ("SHARPNESS <= .1", [1]),
        ("seed IN (SELECT * FROM range(2)) -- a note", [0, 1]),
        ("large = 9223372036854775807", [2]),
        ("true", [0, 1, 2]),
        ("prompt <> 'sharpness isn''t \"x' AND prompt != E'it\\'s a path'", [0, 1]),
        ("NULL", []),
    ],
)
def test_rows_come_as_they_are_and_in_their_order(condition: str, rows: list[int], output: str) -> None:
    table = framefleet.read_records(output, columns=["seed", "odd name"], where=condition)
    assert table.to_pylist() == [{"seed": row, "odd name": "xyz"[row]} for row in rows]


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
def test_what_is_no_condition_on_a_row_is_refused(condition: str, output: str) -> None:
    assert refusal(output, condition).fix


TABLE_OF_TESTS = TABLE  # a variable that DuckDB would find in the frames of its callers


def test_no_file_and_no_network_is_asked(tmp_path: Path, output: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for source in (f"read_csv('{secret}')", f"'{secret}'", "'https://127.0.0.1:1/a.parquet'", "glob('/*')"):
        refusal(output, f"(SELECT count(*) FROM {source}) > 0")
    for setting in ("SET enable_external_access = true", "COPY (SELECT 1) TO 'x'", "INSTALL httpfs"):
        refusal(output, setting)


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
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(one).ru_maxrss for one in who) << 10


@pytest.mark.parametrize(
    ("condition", "fix"),
    [
        ('"sharpnes" > 0.4', "write a text in single quotes: 'sharpnes'; or did you mean 'sharpness'?"),
        ('prompt = "a ball"', "write a text in single quotes: 'a ball'"),
        ("accepted", "only outputs of a job with `until:` have it"),
        ("flicker < 1", "add it first: framefleet score OUTPUT --scores flicker"),
        ("nsfw < 1", "add it first: framefleet score OUTPUT --scores "),
        ('"flicker" < 1', "write a text in single quotes: 'flicker'; or add it first: framefleet score OUT"),
        ("prompt > 1", "prompt is text: to use it as a number, write CAST(prompt AS DOUBLE)"),
        ("1.5 <= prompt and seed = 7", "prompt is text: to use it"),
        ("prompt between 1 and 2", "prompt is text: to use it"),
        ("prompt + 1 > 2", "prompt is text: to use it"),
        ("seed >", "write it as"),
    ],
)
def test_a_mistake_is_named_with_its_fix(condition: str, fix: str, output: str) -> None:
    assert refusal(output, condition).fix.startswith(fix)


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


@pytest.mark.parametrize(
    ("condition", "source", "fix"),
    [
        ("flicker < 1", "it to `scores:`", "add it to `scores:`"),
        ("sharpnes > 1", "it to `scores:`", "did you mean 'sharpness'? Or add it to `scores:`"),
        ("zzzz > 0.4", "", "prompt, seed, sharpness"),
    ],
)
def test_a_column_that_a_job_lacks_is_named_with_its_key(condition: str, source: str, fix: str) -> None:
    with pytest.raises(JobError, match="no column") as caught:
        check_where(TABLE.schema, condition, source=source)
    assert fix in caught.value.fix
    assert {*SCORES.command_columns} >= {*OWN_SCORES}


@pytest.mark.parametrize("condition", ["SEED = 1", "seed = 1 AND Seed = 7"])
def test_names_that_sql_takes_for_one_are_refused_unless_their_case_says_which(condition: str) -> None:
    assert chosen("Seed = 8") == [8]
    with pytest.raises(JobError, match="'seed' and 'Seed', which SQL takes for one"):
        chosen(condition)


def test_the_example_of_picks_says_what_is_missing(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "examples/pick.py"
    ended = subprocess.run([sys.executable, script, tmp_path / "none"], capture_output=True, text=True)
    assert ended.returncode == 1 and ended.stderr.startswith(f"{tmp_path / 'none'}: IO Error: No files found")
