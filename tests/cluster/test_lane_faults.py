"""Faults stay with the model, the recipe or the row whose they are: the other rows are done, the job ends."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import framefleet
from framefleet import FleetError, Store
from tests.jobs import all_columns, job_values, prompt_rows, records_of, start_render, write_job, write_table
from tests.servers import warm_program
from tests.tiny import tiny
from tests.two_models import MODELS, two_model_rows, two_models

# By recipe: what the prompts of bad rows say, and what their failures are.
FAULTS = {
    "kills": ("killer", "WorkerDied", "its worker died "),
    "hangs": ("hang", "WorkerDied", "it hung"),
    "fills_disk": ("full", "OSError", "No space left on device"),
    "never_fits": ("huge", "OutOfMemory", "render smaller"),
    "raises": ("poison", "ValueError", "this row is poison"),
    "refuses": ("unwanted", "RowError", "this row is refused"),
}
DEADLY = ("kills", "hangs")
OF_ROWS = [fault for fault in FAULTS if fault != "fills_disk"]  # if all rows fill it, the machine is blamed
ALL_OF_THE_SECOND = (1, 3, 5, 7)
BY_ROWS = r"\([234] of them killed workers, see failures/\): no machine is left that can render"


def fleet_of(address: str, workers: int) -> dict[str, Any]:
    return {"workers": workers, "gpus_per_worker": 0, "address": address}


def unloadable(folder: Path, model: str) -> str:
    """Return a copy of a model whose weights are fewer than its network has."""
    path = Path(shutil.copytree(tiny(model), folder / f"bad-{model}"))
    config = path / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 3}))
    return str(path)


@pytest.mark.parametrize("bad", MODELS)
def test_a_model_that_cannot_be_loaded_ends_the_job_after_the_rows_of_the_other(
    bad: str, tmp_path: Path, ray_cluster: str
) -> None:
    values = two_models(tmp_path, two_model_rows(8), fleet=fleet_of(ray_cluster, 1))
    values["models"] |= {bad: unloadable(tmp_path, bad)}
    with pytest.raises(FleetError, match=f"{bad}.*: 4 rows left") as raised:
        framefleet.render(values)
    assert "transformer" in raised.value.problem
    done = [record["model_name"] for record in records_of(tmp_path / "out")]
    assert done == [name for name in MODELS if name != bad] * 4


def bad_job(
    folder: Path, fault: str, bad: Collection[int], *, num_models: int, address: str, workers: int = 1
) -> dict[str, Any]:
    """Return a job of eight rows, of which some are bad."""
    rows = two_model_rows(8) if num_models == 2 else prompt_rows(8)
    for number in bad:
        rows[number]["prompt"] = FAULTS[fault][0]
    fleet = fleet_of(address, workers)
    more: dict[str, Any] = {"recipe": f"tests.faults:{fault}", "fleet": fleet}
    if fault == "hangs":
        more["retries"] = {"stall_s": 4}
    if num_models == 2:
        return two_models(folder, rows, **more)
    return job_values(write_table(folder / "t.parquet", rows), folder / "out", **more)


def check_ended(output: Path, fault: str, bad: Collection[int], *, at_least: int | None = None) -> None:
    """All rows are done but the bad ones, each or `at_least` so many of which failed with its reason."""
    store = Store(str(output))
    records = all_columns(store, "records").to_pylist()
    assert {index for record in records for index in record["row_indices"]} == {*range(8)} - {*bad}
    failures = all_columns(store, "failures").to_pylist()
    failed = {failure["row_indices"][0] for failure in failures}
    assert failed <= {*bad} and len(failed) >= (len(bad) if at_least is None else at_least)
    _, error_type, message = FAULTS[fault]
    assert {failure["error_type"] for failure in failures} == {error_type}
    messages = [failure["message"] for failure in failures]
    assert all(message in each for each in messages), messages


@pytest.mark.parametrize("fault", FAULTS)
def test_some_rows_of_any_fault_fail_and_all_others_are_done(
    fault: str, tmp_path: Path, ray_cluster: str
) -> None:
    bad = (1, 2)
    summary = framefleet.render(bad_job(tmp_path, fault, bad, num_models=2, address=ray_cluster))
    assert (summary.done, summary.failed) == (8 - len(bad), len(bad))
    check_ended(tmp_path / "out", fault, bad)


@pytest.mark.parametrize("fault", OF_ROWS)
def test_all_rows_of_a_model_fail_and_those_of_the_other_are_done(
    fault: str, tmp_path: Path, ray_cluster: str
) -> None:
    """If their workers all die, the model is given up."""
    given_up = pytest.raises(FleetError, match=f"ltx, tests.faults:{fault}: 4 rows left {BY_ROWS}")
    with given_up if fault in DEADLY else nullcontext():
        framefleet.render(bad_job(tmp_path, fault, ALL_OF_THE_SECOND, num_models=2, address=ray_cluster))
    check_ended(tmp_path / "out", fault, ALL_OF_THE_SECOND, at_least=2 if fault in DEADLY else None)


@pytest.fixture(scope="module")
def two_machines() -> Iterator[str]:
    """Yield the address of a cluster of two machines, with room for a worker each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        with warm_program("two_nodes") as (address, _):
            yield address


def test_on_two_machines_where_no_row_was_ever_done_deaths_are_the_machines(
    tmp_path: Path, two_machines: str
) -> None:
    values = bad_job(tmp_path, "kills", range(8), num_models=1, address=two_machines, workers=2)
    process = start_render(write_job(tmp_path / "job.yaml", values))
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 3 and "no machine is left that can render" in printed, printed
    assert "its process was killed (e.g. by SIGKILL)" in printed
    assert not records_of(tmp_path / "out")
