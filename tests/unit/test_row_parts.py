"""rows/ says what the table says, row by row, whatever was there before and whoever was killed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from framefleet import Store, StoreError
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render import row_parts as module
from framefleet.jobs.render.resolve import resolve_job
from framefleet.jobs.render.row_parts import write_rows
from framefleet.jobs.render.survey import survey_rows, write_invalid
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.rows.tables.index import RowIndex
from tests.jobs import job_values, resolved_from, write_table
from tests.media_files import picture

SAME = {"prompt": "a cat", "seed": 1, "tag": "first"}


class Held:
    epoch = 1

    def __init__(self, checks: int = 1000) -> None:
        self._checks = checks

    def check(self) -> None:
        self._checks -= 1
        if self._checks < 0:
            raise StoreError("another driver has it", "wait")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROWS_IN_PART", 2)


def keep(folder: Path, rows: list[dict[str, Any]], hold: Held | None = None, **more: Any) -> Path:
    values = job_values(write_table(folder / "t.parquet", rows), folder / "out", **more)
    with resolved_from(values) as resolved, closing(RowIndex()) as index:
        survey_rows(resolved, index, Callback())
        write_rows(resolved, index, hold or Held())
    return folder / "out"


def lines(output: Path, *columns: str) -> list[tuple[Any, ...]]:
    table = pq.read_table(output / "rows")
    return [tuple(row[name] for name in ("row_index", *columns)) for row in table.to_pylist()]


def rows(*tags: str) -> list[dict[str, Any]]:
    return [SAME | {"tag": tag, "seed": 1 + number // 2} for number, tag in enumerate(tags)]


def test_rows_with_equal_row_id_keep_each_ones_columns(tmp_path: Path) -> None:
    output = keep(tmp_path, rows("a", "b", "c"))
    assert lines(output, "tag") == [(0, "a"), (1, "b"), (2, "c")]
    first, second, third = (row_id for _, row_id in lines(output, "row_id"))
    assert first == second != third


@pytest.mark.parametrize(("before", "now"), [("a", "ab"), ("abcde", "eda")], ids=["longer", "reordered"])
def test_a_table_that_changed_leaves_no_line_of_before(before: str, now: str, tmp_path: Path) -> None:
    keep(tmp_path, rows(*before))
    assert lines(keep(tmp_path, rows(*now)), "tag") == [*enumerate(now)]


def test_parts_that_are_as_they_should_be_stay(tmp_path: Path) -> None:
    output = keep(tmp_path, rows("a", "b", "c"))
    before = {path: path.stat().st_mtime_ns for path in (output / "rows").iterdir()}
    keep(tmp_path, rows("a", "b", "c"), Held(checks=0))
    assert {path: path.stat().st_mtime_ns for path in (output / "rows").iterdir()} == before


def test_a_part_that_is_damaged_lost_or_of_another_is_written_anew(tmp_path: Path) -> None:
    output = keep(tmp_path, rows("a", "b", "c", "d", "e"))
    parts = sorted((output / "rows").glob("*.parquet"))
    parts[0].write_bytes(parts[2].read_bytes())
    parts[1].unlink()
    keep(tmp_path, rows("a", "b", "c", "d", "e"))
    assert [tag for _, tag in lines(output, "tag")] == list("abcde")


@pytest.mark.parametrize("checks", range(5))
def test_who_loses_the_output_doubles_no_line_and_the_next_completes(tmp_path: Path, checks: int) -> None:
    output = keep(tmp_path, rows("a", "b", "c", "d"))
    try:
        keep(tmp_path, rows("d", "c", "b", "a", "e"), Held(checks))
    except StoreError:
        places = [place for (place,) in lines(output)]
        assert len(places) == len(set(places))
    keep(tmp_path, rows("a", "b", "c"))  # what the notes say of before is no reason to skip anything
    assert lines(output, "tag") == [(0, "a"), (1, "b"), (2, "c")]


def test_rows_that_cannot_be_rendered_are_not_among_them(tmp_path: Path) -> None:
    table = [*rows("a", "b"), SAME | {"prompt": " ", "tag": "blank"}, SAME | {"tag": "d"}]
    assert lines(keep(tmp_path, table, on_invalid="skip"), "tag") == [(0, "a"), (1, "b"), (3, "d")]


def test_rows_that_are_left_out_are_kept_without_secrets_of_urls(tmp_path: Path) -> None:
    secret = "https://ann:hunter2@127.0.0.1:9/a.png"
    table = [SAME, SAME | {"image": secret}, SAME | {"image": f'["{secret}"]'}]
    table = [{"image": "a.png"} | row for row in table]
    picture().save(tmp_path / "a.png")
    values = job_values(write_table(tmp_path / "t.parquet", table), tmp_path / "out", model="wan_i2v")
    job = load_job(values | {"on_invalid": "skip"})
    with closing(resolve_job(job, Callback())) as resolved, closing(RowIndex()) as index:
        survey_rows(resolved, index, Callback())
        write_invalid(resolved, index, run="1", heed=lambda: None)
    places = pq.read_table(tmp_path / "out" / "invalid")["image"].to_pylist()
    assert places == ["https://127.0.0.1:9/a.png", '["https://127.0.0.1:9/a.png"]']


def test_notes_that_nobody_can_read_are_written_anew(tmp_path: Path) -> None:
    output = keep(tmp_path, rows("a"))
    Store(str(output)).write("rows/_written.json", b"[")
    assert lines(keep(tmp_path, rows("a")), "tag") == [(0, "a")]
    keep(tmp_path, rows("a"), Held(checks=0))


def test_a_table_that_carries_nothing_still_says_which_row_is_which(tmp_path: Path) -> None:
    output = keep(tmp_path, [{"prompt": "a cat"}, {"prompt": "a dog"}])
    assert pq.read_schema(output / "rows" / "part-000000.parquet").names == ["row_index", "row_id"]
    assert len(lines(output)) == 2
