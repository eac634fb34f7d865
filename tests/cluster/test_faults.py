"""Rows that raise whatever there is, or end their process: the others finish, these say why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import framefleet
from framefleet import Store
from tests.commands import command
from tests.faults import ENDINGS, ODD_ERRORS
from tests.jobs import all_columns, job_values, prompt_rows, records_of, write_job, write_table


@pytest.mark.promise("A row that fails during rendering never stops the others")
def test_an_error_of_any_kind_ends_its_row_and_not_the_worker(tmp_path: Path, ray_cluster: str) -> None:
    rows = prompt_rows(2 * len(ODD_ERRORS), num_inference_steps=1)
    for row, prompt in zip(rows[::2], ODD_ERRORS, strict=True):
        row["prompt"] = prompt
    fleet = {"workers": 1, "gpus_per_worker": 0, "address": ray_cluster}
    more: dict[str, Any] = {"recipe": "tests.faults:raises_oddly", "fleet": fleet}
    summary = framefleet.render(
        job_values(write_table(tmp_path / "t.parquet", rows), tmp_path / "out", **more)
    )
    assert (summary.done, summary.failed) == (len(ODD_ERRORS), len(ODD_ERRORS))
    failures = all_columns(Store(str(tmp_path / "out")), "failures").to_pylist()
    for failure in failures:
        _, said = ODD_ERRORS[rows[failure["row_indices"][0]]["prompt"]]
        assert said in failure["message"] and failure["error_type"] != "WorkerDied", failure["message"][:200]
        assert failure["attempts"] == 3 and len(failure["traceback"]) < 30_000
    assert len({record["worker"] for record in records_of(tmp_path / "out")}) == 1


@pytest.mark.promise("A row that fails during rendering never stops the others")
@pytest.mark.parametrize(
    ("num_workers", "prompts"),
    [(1, ["SIGTERM", "main thread", "exit"]), (2, ["its group", "thread", "connection"])],
)
def test_rows_that_end_their_own_process_do_not_come_back_for_ever(
    num_workers: int, prompts: list[str], tmp_path: Path, ray_cluster: str
) -> None:
    rows = prompt_rows(17)
    for row, prompt in zip(rows[2::5], prompts, strict=True):
        row["prompt"] = prompt
    fleet = {"workers": num_workers, "gpus_per_worker": 0, "address": ray_cluster}
    table = write_table(tmp_path / "t.parquet", rows)
    job = write_job(
        tmp_path / "job.yaml", job_values(table, tmp_path / "out", recipe="tests.faults:ends", fleet=fleet)
    )
    command("render", job, exits=1)
    ending = {row["tag"]: row["prompt"] for row in rows if row["prompt"] in prompts}
    tags = {row["tag"] for row in records_of(tmp_path / "out")}
    assert tags == {row["tag"] for row in rows} - ending.keys()
    failures = records_of(tmp_path / "out", "failures")
    assert sorted(failure["tag"] for failure in failures) == sorted(ending)
    for failure in failures:
        assert ENDINGS[ending[failure["tag"]]][1] in failure["message"], failure
