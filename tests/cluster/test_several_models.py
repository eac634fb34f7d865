"""Two models share the workers of a Ray: each row has the bits of a job of its model, whatever is killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import framefleet
from tests import jobs
from tests.driven import render_driven
from tests.two_models import MODELS, one_model, two_model_rows, two_models

ROWS = two_model_rows(24)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """What jobs of one model each render."""
    folder = tmp_path_factory.mktemp("alone")
    for model in MODELS:
        render_driven(one_model(folder, ROWS, model))
    return {
        tag: digests
        for model in MODELS
        for tag, digests in jobs.digests_by_tag(folder / f"out-{model}").items()
    }


def test_two_workers_are_killed_and_resume_with_the_same_bits(
    alone: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    for number in range(5):  # after a pause of this process all rows may be done
        (folder := tmp_path / str(number)).mkdir()
        output, job = folder / "out", jobs.write_job(folder / "job.yaml", two_models(folder, ROWS))
        process = jobs.start_render(job)
        jobs.wait_until(lambda output=output: jobs.num_clips(output) >= 4)
        if workers := jobs.worker_pids(process.pid):
            break
        jobs.finish(process)
    os.kill(workers[0], signal.SIGKILL)
    jobs.wait_until(lambda: jobs.num_clips(output) >= 10)
    process.kill()
    process.communicate()
    jobs.check_whole(output)
    jobs.finish(jobs.start_render(job))
    assert jobs.digests_by_tag(output) == alone
    assert len(jobs.records_of(output)) == len(ROWS)
    assert framefleet.verify(output, files=True).is_well
