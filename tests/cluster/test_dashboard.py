"""A real Prometheus scrapes a job, whose figures add up, and answers every query of the dashboard."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

import framefleet
from framefleet.cluster.driver.progress import WORKER_STATES
from framefleet.jobs.show.progress import serving_metrics
from framefleet.jobs.show.watch import Callback, Standing
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.metrics import (
    BUSY,
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
from tests.jobs import ROOT, job_values, prompt_rows, records_of, write_job, write_table
from tests.outputs import UNDER_WAY
from tests.servers import free_port, ray_head, wait_until_it_listens
from tests.warm.process import start

PROMETHEUS = shutil.which("prometheus")
DASHBOARD = json.loads((ROOT / "examples/grafana.json").read_text())
LABELS = {
    "outcome": ("done", "failed"),
    "state": ("done", "failed", "leased", "waiting", *WORKER_STATES),
    "cause": (*BUSY, "load", "rows"),
    "verdict": ("equal",),
    "error_type": ("OutOfMemory",),
    "direction": ("read", "written"),
}
VARIABLES = {"$__rate_interval": "10s", "$output": ".*"}
WITHIN_S = 30.0
# In a process of its own, as Ray is one's for good. Ends with 0 once the cluster exports what it published.
DRIVER = """
import sys, time, urllib.request
from framefleet.cluster.fleet.connection import RayMetrics, connect
GAUGE, TOTAL = "ray_framefleet_blocked_places{", "ray_framefleet_rows_total{"
with connect(f"127.0.0.1:{sys.argv[1]}", num_cpus=1):
    metrics = RayMetrics("s3://bucket/run-7")
    for number in range(1, 480):
        metrics.publish({"rows/done": number, "blocked_places": 2})
        time.sleep(0.5)
        try:
            text = urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[2]}/metrics").read().decode()
        except OSError:  # its agent starts later
            continue
        said = [line.rpartition(" ") for line in text.splitlines() if "run-7" in line]
        gauges = [float(value) for name, _, value in said if name.startswith(GAUGE)]
        totals = [float(value) for name, _, value in said if name.startswith(TOTAL) and "done" in name]
        if gauges == [2] and totals and 1 < totals[0] <= number:
            sys.exit(0)
sys.exit(1)
"""


def standing(seconds: float) -> Standing:
    """Return a job whose figures have all grown for as long."""
    keys = [
        metric.key(value)
        for metric in METRICS.values()
        for value in (LABELS[metric.label] if metric.label else ("",))
    ]
    return replace(UNDER_WAY, figures={key: seconds for key in keys})


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """Yield the endpoint of one that scrapes a target every half second."""
    config, port = folder / "prometheus.yml", free_port()
    scrape = {"job_name": "framefleet", "scrape_interval": "500ms", "static_configs": [{"targets": [target]}]}
    config.write_text(json.dumps({"scrape_configs": [scrape]}))
    places = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [str(PROMETHEUS), *places, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log
        )
    try:
        wait_until_it_listens(port, process, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def answer(endpoint: str, query: str) -> list[dict[str, Any]]:
    url = f"{endpoint}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url) as reply:
        found: list[dict[str, Any]] = json.load(reply)["data"]["result"]
    return found


@pytest.mark.skipif(PROMETHEUS is None, reason="needs prometheus on PATH")
def test_every_panel_of_the_dashboard_has_an_answer(tmp_path: Path) -> None:
    began, at = time.monotonic(), f"127.0.0.1:{free_port()}"
    queries = {target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]}
    with (
        serving_metrics(Callback(), at, output="s3://bucket/run-7") as watch,
        prometheus(tmp_path, at) as endpoint,
    ):
        while queries and time.monotonic() - began < WITHIN_S:
            watch.show(standing(time.monotonic() - began))
            time.sleep(0.25)
            for query in list(queries):
                asked = query
                for name, value in VARIABLES.items():
                    asked = asked.replace(name, value)
                if any(float(one["value"][1]) > 0 for one in answer(endpoint, asked)):
                    queries.discard(query)
        assert not queries
        (outputs,) = {one["metric"]["output"] for one in answer(endpoint, "framefleet_job_rows")}
        assert outputs == "s3://bucket/run-7"
        causes = answer(endpoint, "sum by (cause) (framefleet_worker_seconds_total)")
        assert {one["metric"]["cause"] for one in causes} == {*LABELS["cause"]}


def test_a_port_that_is_taken_is_refused() -> None:
    with serving_metrics(Callback(), (at := f"127.0.0.1:{free_port()}"), output="out"):
        with pytest.raises(JobError, match="cannot be served") as caught:
            serving_metrics(Callback(), at, output="out").__enter__()
        assert "free port" in caught.value.fix


def test_a_cluster_that_a_job_joined_exports_its_figures() -> None:
    port, exported_at = free_port(), free_port()
    options = ("--num-cpus=1", "--include-dashboard=false", f"--metrics-export-port={exported_at}")
    with (
        tempfile.TemporaryDirectory(prefix="ray-") as folder,
        ray_head(Path(folder), port, *options, RAY_AUTH_MODE="disabled"),
        start(
            *("-c", DRIVER, str(port), str(exported_at)),
            env={"RAY_AUTH_MODE": "disabled"},
            is_cold=True,
            stderr=None,
        ) as driver,
    ):
        assert driver.wait(timeout=400) == 0


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
