"""`fleet.same_gpu`: the first worker, or the output's first record, says which GPU the others must have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from framefleet.cluster.dispatch.faults import LostRows
from framefleet.cluster.fleet.events import Event, Lost, Ready, Reported
from framefleet.cluster.fleet.losses import Cause
from framefleet.cluster.worker.messages import StoredRow, WorkerReport
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.resolve import ResolvedJob, resolve_job
from framefleet.jobs.show.watch import Callback
from tests.driving import begun, drive, hello_of, left_of
from tests.jobs import job_values, prompt_rows, records_of, write_table
from tests.rows import RECORD
from tests.unit.test_drain import Workers

H100, A100 = ({"gpu": name, "cpu": "Xeon"} for name in ("H100", "A100"))


@dataclass
class Mixed(Workers):
    """Workers of different machines, of which the driver may refuse some."""

    environments: tuple[dict[str, str], ...] = ()
    refused: list[Cause] = field(default_factory=list)

    def wait(self, timeout_s: float) -> list[Event]:
        if not self.num_started:
            self.num_started = len(self.environments)
            return [
                Ready(f"worker-{number}", replace(self.hello, environment=environment, node=f"node-{number}"))
                for number, environment in enumerate(self.environments)
            ]
        return [Reported(worker, self._report(worker)) for worker in list(self.hands)]

    def _report(self, worker: str) -> WorkerReport:
        rows, self.hands[worker] = self.hands[worker], []
        said = json.dumps(self.environments[int(worker[-1])])
        records = [replace(RECORD, row_id=row.row_id, environment=said) for row in rows]
        return WorkerReport(rendered=tuple(StoredRow(record=record) for record in records))

    def end(self, worker: str, cause: Cause) -> Lost:
        self.refused.append(cause)
        return Lost(worker, cause)

    def replace(self, lost: Lost, loss: LostRows) -> None:
        """None takes its place."""


@pytest.fixture
def resolved(tmp_path: Path) -> Iterator[ResolvedJob]:
    values = job_values(write_table(tmp_path / "t.parquet", prompt_rows(4)), tmp_path / "out")
    values["fleet"]["same_gpu"] = True
    with closing(resolve_job(load_job(values), Callback())) as resolved:
        yield resolved


def render(resolved: ResolvedJob, *environments: dict[str, str], only: int = 4) -> list[Cause]:
    workers = Mixed(resolved.store, hello_of(resolved), environments=environments)
    with begun(resolved) as (_, index, lock):
        index.leave_only(row_id for _, row_id in index.pending_in(0, only))
        drive(left_of(resolved, index, lock), workers)
    return workers.refused


def gpus(output: Path) -> list[str]:
    return [json.loads(record["environment"]).get("gpu") for record in records_of(output)]


def test_the_first_worker_decides_others_are_refused_by_name_and_an_output_keeps_its_gpu(
    resolved: ResolvedJob, tmp_path: Path
) -> None:
    (refused,) = render(resolved, H100, A100, H100, only=2)
    assert refused.kind == "refused" and "worker-1 on node-1 has A100" in refused.reason
    assert "this output is rendered on H100 (fleet.same_gpu)" in refused.reason
    assert len(render(resolved, A100, H100)) == 1
    assert gpus(tmp_path / "out") == ["H100"] * 4


def test_without_a_gpu_the_processor_decides_where_somebody_asks(
    resolved: ResolvedJob,
) -> None:
    (refused,) = render(resolved, {"cpu": "Xeon"}, {"cpu": "EPYC"}, only=2)
    assert "has EPYC, and this output is rendered on Xeon" in refused.reason
    fleet = resolved.job.fleet.model_copy(update={"same_gpu": False})
    resolved = replace(resolved, job=resolved.job.model_copy(update={"fleet": fleet}))
    assert not render(resolved, H100, A100)
