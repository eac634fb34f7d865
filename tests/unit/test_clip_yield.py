"""How much of what a job took became clips that are accepted, and what each of these cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import framefleet
from framefleet.pipeline.errors import JobError
from tests.commands import command
from tests.outputs import UNDER_WAY, write_driver, write_output
from tests.rows import record

FIRST = {"worker_seconds/denoise": 300.0, "worker_seconds/decode": 60.0, "worker_seconds/load": 40.0}
SECOND = {"worker_seconds/denoise": 100.0, "worker_seconds/audit": 60.0, "worker_seconds/rows": 40.0}
DRAFTS = {"worker_seconds/denoise": 200.0, "worker_seconds/rows": 100.0}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Four clips of 100 s, of 520 s in which models computed, of 600 s in two runs; 300 s of drafts."""
    rows = [record(number, compute_s=100.0, fps=float(number)) for number in range(1, 5)]
    store = write_output(tmp_path, rows, job={"draft": {}})
    for epoch, figures in enumerate((FIRST, SECOND), start=1):
        write_driver(store, epoch, progress=replace(UNDER_WAY, figures=figures), ended=True)
    write_driver(store.below("drafts"), progress=replace(UNDER_WAY, figures=DRAFTS), ended=True)
    lines = [{"row_id": row.row_id, "stars": stars} for row, stars in zip(rows, (5, 1), strict=False)]
    store.write("stars.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines).encode())
    return tmp_path


@pytest.mark.parametrize(
    ("accepted", "num_accepted"), [(None, 4), ("fps > 1", 3), ("stars >= 3", 1), ("stars >= 3 OR fps = 4", 2)]
)
def test_all_time_is_shared_out_by_what_became_of_it(
    output: Path, accepted: str | None, num_accepted: int
) -> None:
    found = framefleet.report(str(output), price=36.0, accepted=accepted, write=False).clip_yield
    assert found is not None and (found.num_clips, found.num_accepted) == (4, num_accepted)
    parts = {"accepted clips": 100.0 * num_accepted, "other clips": 400.0 - 100.0 * num_accepted}
    parts |= {"drafts": 300.0, "failed or repeated": 120.0, "loading": 40.0, "waiting": 40.0}
    assert found.seconds == {name: seconds for name, seconds in parts.items() if seconds}
    assert found.accepted_share == pytest.approx(num_accepted / 9)
    assert found.networks_share == pytest.approx(660 / 900)
    assert found.cost_per_accepted == pytest.approx(9.0 / num_accepted)


def test_what_is_printed_names_the_share_and_the_price_of_each(output: Path) -> None:
    shown = command("report", output, "--price", "36", "--accepted", "stars >= 3").stdout.splitlines()
    clips = "11% made accepted clips (1 of 4 clips; 9 for each), other clips 33%, "
    rest = "drafts 33%, failed or repeated 13%, loading 4%, waiting 4%"
    line = f"yield: of the workers' time, networks computed for 73%; {clips}{rest}"
    assert shown[:2] == ["cost: 9.00 (worker hours: 0.25 x 36, drafts: 0.0833)", line]
    values = json.loads((output / "report.json").read_text())
    assert values["clip_yield"]["accepted_share"] == pytest.approx(1 / 9)
    assert values["spent"]["worker_seconds/denoise"] == 400
    page = (output / "report.html").read_text()
    assert "What became of the time" in page and "stars &gt;= 3" in page and "Where the time goes" in page


def test_what_no_driver_counted_is_not_said(tmp_path: Path) -> None:
    store = write_output(tmp_path, [record(1, compute_s=3.0)])
    write_driver(store, progress=replace(UNDER_WAY, figures={"worker_seconds/denoise": -9.0}), ended=True)
    found = framefleet.report(str(tmp_path))
    assert (found.clip_yield, found.spent) == (None, {})
    assert "became" not in (tmp_path / "report.html").read_text()


def test_a_condition_on_no_column_is_refused_and_one_that_no_clip_meets_pointed_out(output: Path) -> None:
    with pytest.raises(JobError, match="start"):
        framefleet.report(str(output), accepted="start >= 3", write=False)
    assert "note: no clip meets 'fps > 99'" in command("report", output, "--accepted", "fps > 99").stderr
    assert "gallery --serve" in command("report", output, "--accepted", "stars > 99").stderr
