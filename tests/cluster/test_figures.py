"""One real run: summary, webhook, /metrics, status and report say the same of all that they all say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

import framefleet
from framefleet.pipeline.metrics import (
    CLIP_BYTES,
    JOB_ROWS,
    METRICS,
    ROW_OUTCOMES,
    STORE_BYTES,
    WORKERS,
    of_runs,
)
from tests.answering import Answering, answered_by
from tests.commands import command
from tests.jobs import job_values, prompt_rows, records_of, write_job, write_table
from tests.servers import free_port

NUM_ROWS, LIMIT = 6, 4


class Hook(Answering):
    """Takes what the run says as it ends, and what /metrics says at that moment."""

    metrics_port: int
    ending: dict[str, Any]
    metrics: dict[str, float]

    def do_POST(self) -> None:
        kind = type(self)
        kind.ending = json.loads(self.body())
        kind.metrics = {}
        with urlopen(f"http://127.0.0.1:{kind.metrics_port}/metrics") as answer:
            for family in text_string_to_metric_families(answer.read().decode()):
                metric = METRICS[family.name.removeprefix("framefleet_")]
                for sample in family.samples:
                    if not sample.name.endswith("_created"):
                        kind.metrics[metric.key(sample.labels.get(metric.label, ""))] = sample.value
        self.answer(200)


@pytest.fixture
def hook() -> Iterator[str]:
    Hook.metrics_port = free_port()
    with answered_by(Hook) as url:
        yield f"{url}/"


def rendered(job: Path | str, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = ("render", job, "--json", "--metrics-port", str(Hook.metrics_port), *more)
    run = subprocess.run(
        [sys.executable, "-m", "framefleet", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"NO_COLOR": "1"},
    )
    assert run.returncode == 0, run.stderr
    return run


def test_all_who_tell_how_a_run_went_tell_the_same(tmp_path: Path, hook: str) -> None:
    table = write_table(tmp_path / "t.parquet", prompt_rows(NUM_ROWS))
    out = tmp_path / "out"
    job = write_job(tmp_path / "job.yaml", job_values(table, out, on_end={"webhook": hook}))
    run = rendered(job, "--limit", str(LIMIT))
    assert f"{NUM_ROWS} rows, 0 done, {LIMIT} to render, {NUM_ROWS - LIMIT} left for later runs" in run.stderr
    summary = json.loads(run.stdout)
    status = json.loads(command("status", out, "--json").stdout)
    framefleet.report(str(out))
    report = json.loads((out / "report.json").read_text())

    figures = summary["figures"]
    assert Hook.ending["summary"] == summary
    assert status["figures"] == figures
    told = {key: Hook.metrics.pop(key, 0.0) for key in figures}
    assert told == pytest.approx(figures)
    assert not any(Hook.metrics.values()), "figures that only Prometheus is told"

    records = records_of(out)
    assert STORE_BYTES.of(figures, "read") > 0 and STORE_BYTES.of(figures, "written") > 0
    assert CLIP_BYTES.total(figures) == sum(record["bytes"] for record in records)
    assert ROW_OUTCOMES.of(figures, "done") == summary["done"] == status["num_done"] == len(records) == LIMIT
    assert JOB_ROWS.of(figures, "done") == LIMIT and JOB_ROWS.of(figures, "waiting") == 0
    assert (status["num_rows"], status["num_left"]) == (NUM_ROWS, NUM_ROWS - LIMIT)
    assert report["rows"]["done"] == LIMIT and report["rows"]["total"] == NUM_ROWS
    assert report["clips"]["num_bytes"] == CLIP_BYTES.total(figures)
    assert report["clips"]["mean_batch"] == pytest.approx(summary["mean_batch"])
    assert report["spent"] == pytest.approx(figures)

    second = json.loads(rendered(job).stdout)["figures"]
    assert Hook.ending["summary"]["figures"] == second
    framefleet.report(str(out))
    report = json.loads((out / "report.json").read_text())
    assert report["spent"] == pytest.approx(of_runs(figures, second))
    assert ROW_OUTCOMES.of(report["spent"], "done") == JOB_ROWS.of(report["spent"], "done") == NUM_ROWS
    assert WORKERS.by_label(report["spent"]) == WORKERS.by_label(second), "those of the last run"
    assert report["clips"]["num_bytes"] == CLIP_BYTES.total(report["spent"])
