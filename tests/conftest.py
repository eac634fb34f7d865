"""Torch and Ray as a worker has them, a cache folder of the tests' own, the order of files side by side."""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
import uuid
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from pathlib import Path

import pytest
import torch

# A shell has its background jobs ignore SIGINT, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# On a CPU the number of threads chooses kernels and with them bits.
torch.set_num_threads(1)
# To join a cluster that wants a token this must be set before Ray is imported. One token for those that tests
# start and join in one process, where Ray reads it once.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
if "PYTEST_XDIST_WORKER" not in os.environ:
    _FOLDER = tempfile.TemporaryDirectory(prefix="framefleet-tests-")
    os.environ["FRAMEFLEET_CACHE"] = _FOLDER.name


# Files that take longest, in that order: begun late, one process would finish them while others have nothing.
# Those of tests/cluster wait for processes more than they compute; the others keep a core busy.
WAITING = ("test_benchmarks", "test_training", "test_kills", "test_weights", "test_demo", "test_interrupts")
COMPUTING = ("test_conformance", "test_crafter", "test_recipes", "test_options", "test_schedulers")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run side by side, let those that wait and those that compute come in turns."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    waiting, computing = (
        sorted((path for path in files if (path.parent.name == "cluster") == waits), key=_place_in(longest))
        for waits, longest in ((True, WAITING), (False, COMPUTING))
    )
    turns = chain.from_iterable(zip_longest(waiting, computing))
    items[:] = [item for path in turns if path for item in files[path]]


def _place_in(longest: Sequence[str]) -> Callable[[Path], int]:
    return lambda path: longest.index(path.stem) if path.stem in longest else len(longest)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test knows what another has found of batches; what classes say of themselves is the same for all."""
    shared = Path(os.environ["FRAMEFLEET_CACHE"])
    own, classes = shared / uuid.uuid4().hex, shared / "classes"
    for folder in (own, classes):
        folder.mkdir(parents=True, exist_ok=True)
    (own / classes.name).symlink_to(classes)
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(own))
