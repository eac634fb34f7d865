"""One job with every kind of bad row: the good ones finish, the bad ones say why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import framefleet
from framefleet import Store, Summary
from tests.commands import command
from tests.faults import ENDINGS, ODD_ERRORS
from tests.jobs import all_columns, job_values, prompt_rows, records_of, write_job, write_table

BAD = {
    3: ("poison", "tests.faults:raises"),
    9: ("killer", "tests.faults:kills"),
    14: ("huge", "tests.faults:never_fits"),
}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory, ray_cluster: str) -> tuple[Summary, Path]:
    folder = tmp_path_factory.mktemp("faults")
    rows = prompt_rows(20, recipe="tests.faults:fits_three")
    for index, (prompt, recipe) in BAD.items():
        rows[index] |= {"prompt": prompt, "recipe": recipe}
    table = write_table(folder / "prompts.parquet", rows)
    # Rows may name recipes of the module that the job itself names, and of no other.
    values = job_values(table, folder / "out", recipe="tests.faults:fits_three", address=ray_cluster)
    summary = framefleet.render(values)
    return summary, folder / "out"


@pytest.fixture(scope="module")
def failures(rendered: tuple[Summary, Path]) -> dict[str, dict[str, Any]]:
    rows = all_columns(Store(str(rendered[1])), "failures").to_pylist()
    return {row["tag"]: row for row in rows}


@pytest.mark.promise("A row that fails during rendering never stops the others")
def test_the_other_rows_finish(rendered: tuple[Summary, Path]) -> None:
    summary, output = rendered
    assert (summary.done, summary.failed) == (20 - len(BAD), len(BAD))
    tags = sorted(row["tag"] for row in records_of(output))
    assert tags == sorted(f"row {i}" for i in range(20) if i not in BAD)


@pytest.mark.promise("Every distinct row ends up with exactly one record")
def test_each_bad_row_fails_once(failures: dict[str, dict[str, Any]]) -> None:
    assert sorted(failures) == sorted(f"row {i}" for i in BAD)


@pytest.mark.promise("A row that fails during rendering never stops the others")
def test_a_raising_recipe_is_tried_three_times_and_told_with_its_traceback(
    failures: dict[str, dict[str, Any]],
) -> None:
    failure = failures["row 3"]
    assert (failure["error_type"], failure["message"]) == ("ValueError", "this row is poison")
    assert len(failure["workers"]) == 3  # attempts may be more: the killer's death can strike it as well
    assert 'raise ValueError("this row is poison")' in failure["traceback"]


@pytest.mark.promise("A row that fails during rendering never stops the others")
def test_a_row_that_kills_its_worker_is_quarantined(failures: dict[str, dict[str, Any]]) -> None:
    failure = failures["row 9"]
    assert failure["error_type"] == "WorkerDied"
    assert failure["attempts"] == 3
    assert "died 3 times" in failure["message"]


@pytest.mark.promise("A row that fails during rendering never stops the others")
def test_a_row_that_never_fits_says_what_would_help(failures: dict[str, dict[str, Any]]) -> None:
    failure = failures["row 14"]
    assert failure["error_type"] == "OutOfMemory"
    assert "render smaller" in failure["message"]


@pytest.mark.promise("A row that fails during rendering never stops the others")
def test_memory_running_out_above_three_rows_fails_no_row(rendered: tuple[Summary, Path]) -> None:
    rows = records_of(rendered[1])
    assert 1.0 < max(row["batch_size"] for row in rows) <= 3.0


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
