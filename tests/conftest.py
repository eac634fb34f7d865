"""Torch and Ray as a worker has them, and a cache folder of the tests' own."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from framefleet.pipeline.model.environment import lines_beginning
from framefleet.pipeline.model.library_process import LIBRARY_PROCESS
from framefleet.pipeline.model.place_trial import prove_place
from tests.durations import pytest_fixture_setup, pytest_runtest_makereport
from tests.lanes import pytest_xdist_make_scheduler
from tests.own_environment import own_environment
from tests.tiers import (
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_configure_node,
    pytest_sessionfinish,
    pytest_testnodedown,
    pytest_unconfigure,
)
from tests.warm.process import pytest_xdist_setupnodes

__all__ = [
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_configure_node",
    "pytest_fixture_setup",
    "pytest_runtest_makereport",
    "pytest_sessionfinish",
    "pytest_testnodedown",
    "pytest_unconfigure",
    "pytest_xdist_make_scheduler",
    "pytest_xdist_setupnodes",
]

# How long an example takes says nothing on a busy machine. With CI set, examples are the same in each run.
hypothesis.settings.register_profile(
    "framefleet",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("framefleet")
# A shell has its background jobs ignore SIGINT, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Else what Ray starts yields to every other process, and waits beside tests that compute.
os.environ.setdefault("RAY_worker_niceness", "0")
# Else a process that has died is taken for one out of reach where the news of it takes more than a second.
os.environ.setdefault("RAY_timeout_ms_task_wait_for_death_info", "10000")
# Else threads of Ray Data look for metrics to report; a traceback logged in one harms `ast.parse` in another
# (https://github.com/python/cpython/issues/106905).
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# diffusers looks for it as it is imported, here and in the processes that tests start.
GUARDRAIL = str(Path(__file__).with_name("guardrail"))
if GUARDRAIL not in sys.path:
    sys.path.append(GUARDRAIL)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), GUARDRAIL]))
if "PYTEST_XDIST_WORKER" not in os.environ:
    _FOLDER = tempfile.TemporaryDirectory(prefix="framefleet-tests-")
    os.environ["FRAMEFLEET_CACHE"] = _FOLDER.name
    # Virtual machines that advertise AMX may crash on bf16. What they need is set before anything computes,
    # for all processes that tests start.
    if "amx" in str(lines_beginning("/proc/cpuinfo", ("flags",))):
        prove_place("cpu", ["bf16", "fp16"])


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """On a CPU the number of threads chooses kernels and with them bits."""
    import torch  # which the process that only hands out tests does without

    torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What is there, thousands of tests, costs no later collection of garbage its time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _not_looked_at_again() -> Iterator[None]:
    """Nor does what a file's tests leave, models for those to come."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _own_environment() -> Iterator[None]:
    """Variables that a file leaves, or libraries in it, reach no other file and nothing that it starts."""
    with own_environment():
        yield


@pytest.fixture(autouse=True, scope="module")
def _own_scheduling() -> Iterator[None]:
    """No file leaves this process real-time, as SVT-AV1 does to root's: all others would starve beside it."""
    yield
    if sys.platform == "linux":
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.fixture(autouse=True, scope="module")
def _one_library_process() -> Iterator[None]:
    """A file's plans ask one process, which takes seven seconds to start, rather than one each."""
    with LIBRARY_PROCESS.use():
        yield


@pytest.fixture(autouse=True)
def _heard() -> None:
    """What is logged reaches `caplog`, also where a command that ran here before kept it to itself."""
    logger = logging.getLogger("framefleet")
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Without what threads log that Ray leaves in this process, such as questions to a Prometheus."""
    with caplog.filtering(_is_not_of_ray):
        yield caplog


def _is_not_of_ray(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] != "ray"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test knows what another has found of batches; what classes say of themselves is the same for all."""
    shared = Path(os.environ["FRAMEFLEET_CACHE"])
    own, classes = shared / uuid.uuid4().hex, shared / "classes"
    for folder in (own, classes):
        folder.mkdir(parents=True, exist_ok=True)
    (own / classes.name).symlink_to(classes)
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(own))
