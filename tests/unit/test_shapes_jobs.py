"""The shipped training jobs are valid, and each begins with what another leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from framefleet.jobs.job.file import load_job
from framefleet.plugins.demo.prepare import MODEL
from framefleet.plugins.train.job import TrainJob

FILES = sorted((MODEL.parent / "train").glob("*.yaml"))
BLANK = "shapes/blank"


def job_of(file: Path) -> TrainJob:
    return load_job(file, [], kind=TrainJob)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_job_is_valid_and_writes_under_its_own_name(file: Path) -> None:
    assert job_of(file).output.endswith(f"shapes/{file.stem}")


def test_the_jobs_are_one_tree_that_grows_from_the_blank_model() -> None:
    jobs = {f"shapes/{file.stem}": job_of(file) for file in FILES}
    for name in jobs:
        begun = set[str]()
        while (path := jobs[name].model.path) != BLANK:
            assert name not in begun
            begun.add(name)
            name = path.removesuffix("/model")
