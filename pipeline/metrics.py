"""The metrics of a job: each is declared here, once, and counted where it happens.

Figures are numbers by key: a metric's name, followed by a value of its label if it has one, e.g. `rows/done`.
Figures of several workers and runs are added. Workers report them and drivers write them as they are; to show
a figure, ask its metric.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

# Causes of a worker's time in which its model computes; in all others but loading, the model is idle.
NETWORKS = ("encode", "denoise", "decode")
BUSY = (*NETWORKS, "plain", "audit", "probe", "compile", "engine")
LOAD = "load"
Spending = Callable[[str], AbstractContextManager[Any]]  # open while time goes to this cause: render/clock.py


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    name: str  # with its unit
    help: str
    label: str = ""  # what it is split by, if anything
    is_total: bool = True  # it only grows; otherwise it is the current value, for the whole job

    def key(self, value: str = "") -> str:
        """Return the key of its figure. value: the label's."""
        return f"{self.name}/{value}" if self.label else self.name

    def of(self, figures: Mapping[str, float], value: str = "") -> float:
        """Return its figure; 0 if nothing was counted. value: the label's."""
        return figures.get(self.key(value), 0.0)

    def by_label(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Return its figures by the value of its label, the largest first."""
        start = f"{self.name}/"
        values = {key.removeprefix(start): value for key, value in figures.items() if key.startswith(start)}
        return dict(sorted(values.items(), key=lambda item: -item[1]))

    def total(self, figures: Mapping[str, float]) -> float:
        return sum(self.by_label(figures).values()) if self.label else self.of(figures)


METRICS: dict[str, Metric] = {}  # by name
_MAX_FIGURES = 200  # of one worker or driver


def _metric(name: str, help: str, *, label: str = "", is_total: bool = True) -> Metric:
    METRICS[name] = Metric(name=name, help=help, label=label, is_total=is_total)
    return METRICS[name]


ROW_OUTCOMES = _metric(
    "rows",
    "Rows that ended: done, adopted (an earlier run left the clip), failed, or withdrawn by an audit.",
    label="outcome",
)
FAILED_BY_TYPE = _metric("failures", "Rows given up on, by type of error.", label="error_type")
JOB_ROWS = _metric(
    "job_rows",
    "Rows of the job: done, failed, leased (with a worker), or waiting.",
    label="state",
    is_total=False,
)
WORKER_SECONDS = _metric(
    "worker_seconds", "Time of workers, by what they spent it on; adds up to their wall time.", label="cause"
)
BATCH_SIZES = _metric("batch_sizes", "Sum of the mean batch sizes of rendered rows.")
ROW_RETRIES = _metric("row_retries", "Times that a row was given to a worker again after it had failed.")
SAVED_CHECKPOINTS = _metric(
    "checkpoints", "Half-done rows that were saved, so that any worker can continue them."
)
AUDITS = _metric("audits", "Rows that were rendered again by a plain call and compared.", label="verdict")
REMEMBERED_SIZES = _metric("remembered_batch_sizes", "Batch sizes of an earlier run that were reused.")
CLIP_BYTES = _metric("clip_bytes", "Size of the clips of this run that have a record.", is_total=False)
STORE_BYTES = _metric("store_bytes", "Bytes read from and written to the output.", label="direction")
STORE_RETRIES = _metric("store_retries", "Requests to the output's store that failed and were repeated.")
STORE_SILENT_SECONDS = _metric(
    "store_silent_seconds",
    "Longest time for which a worker has had no answer from the output's store.",
    is_total=False,
)
WORKERS = _metric("workers", "Workers by state.", label="state", is_total=False)
SERVER_ROWS = _metric("server_rows", "Rows that a server of an engine has rendered.", label="server")
SERVER_IDLE_SECONDS = _metric(
    "server_idle_seconds", "Time of an engine's servers in which they had no row.", label="server"
)
SERVER_DOWN_SECONDS = _metric(
    "server_down_seconds", "Time in which an engine's servers did not answer.", label="server"
)
ENGINE_MONEY = _metric("engine_money", "What an engine charges for the rows of this run, by its `price`.")
BLOCKED_PLACES = _metric(
    "blocked_places", "Machines and workers that are no longer used, because of faults.", is_total=False
)
SPENT_MONEY = _metric(
    "spent_money", "Cost of all runs of the job, in the currency of `budget.price`.", is_total=False
)


def idle_shares(figures: Mapping[str, float]) -> dict[str, float]:
    """Return by cause for which share of the workers' time their loaded model was idle."""
    seconds = {cause: spent for cause, spent in WORKER_SECONDS.by_label(figures).items() if cause != LOAD}
    whole = sum(seconds.values())
    return {cause: spent / whole for cause, spent in seconds.items() if cause not in BUSY and spent}


def added(*several: Mapping[str, float]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for figures in several:
        for key, value in figures.items():
            sums[key] += value
    return dict(sums)


def of_runs(*runs: Mapping[str, float]) -> dict[str, float]:
    """Return the sums over several runs; current values are those of the last run."""
    *earlier, last = runs or ({},)
    return added(*({key: value for key, value in run.items() if _is_total(key)} for run in earlier), last)


def _is_total(key: str) -> bool:
    name, _, _ = key.partition("/")
    return name == CLIP_BYTES.name or (name in METRICS and METRICS[name].is_total)


class Counts:
    """Figures of one worker, driver or store. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._figures: dict[str, float] = defaultdict(float)

    def add(self, metric: Metric, value: float = 1.0, label: str = "") -> None:
        key = metric.key(label)
        with self._lock:
            if key not in self._figures and len(self._figures) >= _MAX_FIGURES:  # errors may have any names
                key = metric.key("others")
            self._figures[key] += value

    def figures(self) -> dict[str, float]:
        with self._lock:
            return dict(self._figures)
