"""A run that goes on takes its rows from rows/, and only where nothing that decides them has changed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from framefleet.jobs.render import row_parts
from framefleet.jobs.render.resolve import ResolvedJob
from framefleet.jobs.render.row_parts import recall_survey, remember_survey, write_rows
from framefleet.jobs.render.survey import Survey, survey_rows
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.rows.tables.index import RowIndex
from tests.jobs import job_values, resolved_from, write_table
from tests.outputs import Held

ROWS = [
    {"prompt": "a cat", "seed": 1, "num_frames": 5, "tag": "x"},
    {"prompt": "a dog", "seed": 2, "num_frames": 9, "tag": "y"},
    {"prompt": "a cat", "seed": 1, "num_frames": 5, "tag": "z"},
]


@contextmanager
def opened(values: dict[str, Any]) -> Iterator[tuple[ResolvedJob, RowIndex]]:
    with resolved_from(values) as resolved, closing(RowIndex()) as index:
        yield resolved, index


def first_run(values: dict[str, Any]) -> Survey:
    with opened(values) as (resolved, index):
        survey = survey_rows(resolved, index, Callback())
        write_rows(resolved, index, Held())
        remember_survey(resolved, survey)
        return survey


def recalled(values: dict[str, Any]) -> Survey | None:
    with opened(values) as (resolved, index):
        return recall_survey(resolved, index, Callback())


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    return job_values(write_table(tmp_path / "t.parquet", ROWS), tmp_path / "out")


def test_what_is_recalled_is_what_was_found(values: dict[str, Any]) -> None:
    found = first_run(values)
    with opened(values) as (resolved, surveyed):
        survey_rows(resolved, surveyed, Callback())
        with closing(RowIndex()) as index:
            survey = recall_survey(resolved, index, Callback())
            assert survey == found
            assert index.row_ids_in(0, 9) == surveyed.row_ids_in(0, 9)
            assert index.counts() == surveyed.counts()


def test_another_fleet_and_a_copy_of_the_settings_change_nothing(values: dict[str, Any]) -> None:
    first_run(values)
    assert recalled({**values, "fleet": {"workers": 3}, "retries": {"attempts": 7}}) is not None


def part(output: Path) -> Path:
    (file,) = (output / "rows").glob("*.parquet")
    return file


def impossible_example(_values: dict[str, Any], output: Path) -> None:
    file = output / "rows" / "_survey.json"
    file.write_text(re.sub(r'("num_frames": ?)\d', r'\1"many"', file.read_text()))


CHANGES: dict[str, Callable[[dict[str, Any], Path], object]] = {
    "rows": lambda values, _: write_table(Path(values["table"]), [*ROWS[:2], ROWS[2] | {"seed": 3}]),
    "defaults": lambda values, _: values["defaults"].update(guidance_scale=3.5),
    "keep": lambda values, _: values.update(keep={"log_probs": True}),  # which not every scheduler has
    "no part": lambda _, output: part(output).unlink(),
    "part": lambda _, output: pq.write_table(pq.read_table(part(output)).slice(0, 2), part(output)),
    "damage": lambda _, output: (output / "rows" / "_survey.json").write_text("{"),
    "example": impossible_example,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_after_any_change_the_table_is_checked_again(
    values: dict[str, Any], tmp_path: Path, change: Callable[[dict[str, Any], Path], None]
) -> None:
    first_run(values)
    change(values, tmp_path / "out")
    assert recalled(values) is None


def test_rows_with_more_to_look_at_are_not_recalled(tmp_path: Path) -> None:
    rows = [row | {"recipe": "generate"} for row in ROWS]
    values = job_values(write_table(tmp_path / "r.parquet", rows), tmp_path / "out")
    first_run(values)
    assert recalled(values) is None


@pytest.mark.parametrize("places", [[0], [1, 2], [4, 5, 6], [0, 3, 6], range(1, 7)])
def test_rows_that_are_left_out_are_left_out_again(
    tmp_path: Path, places: Collection[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_parts, "_ROWS_IN_PART", 2)
    rows = [{**ROWS[0], "seed": at, "num_frames": -1 if at in places else 5} for at in range(7)]
    table = write_table(tmp_path / "t.parquet", rows)
    values = job_values(table, tmp_path / "out", on_invalid="skip")
    first_run(values)
    with opened(values) as (resolved, index):
        survey = recall_survey(resolved, index, Callback())
        assert survey is not None
        assert (survey.num_rows, survey.num_invalid) == (7, len(places))
        assert index.left_out_in(0, 9) == {*places}
        assert [at for at, _ in index.row_ids_in(0, 9)] == [at for at in range(7) if at not in places]


def test_parts_that_hold_other_rows_than_they_say_are_refused(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_run(values)
    file = part(tmp_path / "out")
    notes = tmp_path / "out" / "rows" / "_written.json"
    table = pq.read_table(file)
    more = pa.concat_tables([table, table.set_column(0, "row_index", pa.array([3, 4, 5]))])
    for bad in (
        table.slice(1),
        table.slice(0, 2),
        pa.concat_tables([table, table]),
        table.take([1, 0, 2]),
        more,
    ):
        pq.write_table(bad, file)
        digest, _ = json.loads(notes.read_text())[f"rows/{file.name}"]
        notes.write_text(json.dumps({f"rows/{file.name}": [digest, str(file.stat().st_mtime_ns)]}))
        with pytest.raises(JobError, match="rows"):
            recalled(values)
