"""job.json is lost or damaged: the parts of records say what the output was made with, and guard it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from framefleet import JobError, Store
from framefleet.jobs.job.file import load_job
from framefleet.jobs.job.job_json import read_claim
from framefleet.jobs.render.claim import check_claim, claim
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.show.watch import Callback
from framefleet.pipeline.outputs.layout import CLAIM
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
from tests.driving import hello_of
from tests.jobs import job_values, prompt_rows, write_table
from tests.made_up_workers import Workers, render_by
from tests.outputs import write_part
from tests.rows import record

LOSSES: dict[str, Callable[[Store], None]] = {
    "deleted": lambda store: store.delete(CLAIM),
    "cut short": lambda store: store.write(CLAIM, store.read(CLAIM, 100)),
    "empty": lambda store: store.write(CLAIM, b""),
}


@pytest.fixture
def resolved(tmp_path: Path) -> Iterator[ResolvedJob]:
    values = job_values(write_table(tmp_path / "t.parquet", prompt_rows(6)), tmp_path / "out")
    with closing(resolve_job(load_job(values), Callback())) as resolved:
        claim(resolved)
        yield resolved


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_a_lost_job_json_is_written_again_and_another_job_is_refused(
    lose: Callable[[Store], None], resolved: ResolvedJob
) -> None:
    render_by(Workers(resolved.store, hello_of(resolved), 1, {}), resolved)
    whole = read_claim(resolved.store)
    lose(resolved.store)
    other = replace(resolved, job=resolved.job.model_copy(update={"table": "other.parquet"}))
    with pytest.raises(JobError, match="holds clips of another job"):
        check_claim(other)
    claim(resolved)
    assert read_claim(resolved.store) == whole
    resolved.store.delete_all("records")  # whose parts tell the job
    write_part(resolved.store, "records", RECORD_FIELDS, [values_of(record(1))], "of-an-earlier-version")
    lose(resolved.store)
    with pytest.raises(JobError, match=r"job\.json(.|\n)*put it back"):
        check_claim(resolved)
