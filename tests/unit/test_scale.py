"""How many workers the rows left need."""

from __future__ import annotations

from typing import Any

import pytest

from framefleet import JobError, Progress
from framefleet.cluster.driver.progress import WorkerState
from framefleet.cluster.driver.tally import MIN_ROWS, Scale
from framefleet.cluster.fleet.settings import ElasticWorkers, FleetSettings, shares
from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.schema import Job
from framefleet.pipeline.metrics import ROW_OUTCOMES
from framefleet.plugins.train.job import TrainJob

WORKERS = ElasticWorkers(min=2, max=40, target_s=100)


def progress(*, done: int, left: int, elapsed_s: float, num_busy: int = 1, others: int = 0) -> Progress:
    """others: rows that are done without having been rendered; less than 0: those taken back."""
    workers = [WorkerState(name=f"w{number}", state="rendering") for number in range(num_busy)]
    return Progress(
        total=done + others + left,
        done=done + others,
        failed=0,
        in_flight=0,
        elapsed_s=elapsed_s,
        rows_per_s=None,
        eta_s=None,
        mean_batch=None,
        figures={ROW_OUTCOMES.key("done"): done},
        workers=(*workers, WorkerState(name="idle", state="idle"), WorkerState(name="gone", state="lost")),
    )


def test_the_least_until_it_is_known_how_long_rows_take() -> None:
    settings, scale = FleetSettings(workers=WORKERS), Scale(WORKERS)
    assert (settings.max_workers, settings.num_cpus, shares(settings, []).asked) == (40, 41, 2)
    assert scale.wanted(progress(done=MIN_ROWS - 1, left=1000, elapsed_s=35)) == 2
    assert scale.wanted(progress(done=MIN_ROWS, left=790, elapsed_s=40)) == 40  # 39.5


@pytest.mark.parametrize(("left", "wanted"), [(0, 2), (40, 2), (41, 3), (400, 20), (10**8, 40)])
def test_as_many_as_finish_the_rows_left_in_time(left: int, wanted: int) -> None:
    assert Scale(WORKERS).wanted(progress(done=20, left=left, elapsed_s=50, num_busy=2)) == wanted


def test_clips_of_an_earlier_run_do_not_count_and_rows_to_be_rendered_again_do() -> None:
    scale = Scale(WORKERS)
    assert scale.wanted(progress(done=0, others=10**4, left=400, elapsed_s=1, num_busy=0)) == 2
    assert scale.wanted(progress(done=20, others=10**4, left=400, elapsed_s=101)) == 20
    scale = Scale(WORKERS)
    assert scale.wanted(progress(done=100, left=0, elapsed_s=500)) == 2
    assert scale.wanted(progress(done=100, others=-50, left=50, elapsed_s=500)) == 3


def test_what_rows_took_long_ago_is_forgotten() -> None:
    scale = Scale(WORKERS)
    scale.wanted(progress(done=MIN_ROWS, left=400, elapsed_s=50 * MIN_ROWS))
    wanted = [scale.wanted(progress(done=done, left=390, elapsed_s=5 * done)) for done in range(80, 4000)]
    assert wanted[-1] == 20


@pytest.mark.parametrize(
    ("more", "kind", "problem"),
    [
        ({"fleet": {"workers": {"min": 3, "max": 2}}}, Job, r"fleet.workers.max.*\n.*at least `min`"),
        ({"fleet": {"workers": {"max": 2}}, "train": {}}, TrainJob, "workers that does not change"),
    ],
)
def test_numbers_that_no_fleet_can_have_are_refused(more: dict[str, Any], kind: Any, problem: str) -> None:
    with pytest.raises(JobError, match=problem):
        load_job({"table": "t", "model": "m", "output": "o", **more}, kind=kind)
