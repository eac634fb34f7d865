"""Which process runs which files where tests run side by side, as `pytest -n 4 --dist loadfile` does.

Tests in tests/cluster wait more than they compute, so half of the processes run them. They leave threads of
Ray and of servers behind, and a process with such threads should not fork, as other tests do. So, when these
tests are done, their processes take only short tests that do not fork.
"""

from __future__ import annotations

from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.durations import last_full_run

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

ROOT = Path(__file__).parents[1]
LANES = (True, False)  # of the processes in turn: whether they run what waits


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return what hands out files, where they are to be handed out whole."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Lanes(LoadFileScheduling):  # type: ignore[misc]
        def _assign_work_unit(self, node: WorkerController) -> None:
            files = [file for file in self.workqueue if self._runs(node, file)]
            if not files:
                node.shutdown()  # once it has run what it has
                return
            self.workqueue.move_to_end(min(files, key=_place), last=False)
            super()._assign_work_unit(node)

        @cached_property
        def _is_one_lane(self) -> bool:
            return len(set(map(_waits, self.collection))) == 1

        def _runs(self, node: WorkerController, file: str) -> bool:
            """Whether the file is of the node's lane, of one that no other node is in, or of any."""
            if self._is_one_lane or _lane(node) == _waits(file):
                return True
            if _lane(node) and _is_short(file) and not any(map(_waits, self.workqueue)):
                return True
            others = (other for other in self.nodes if other is not node and not other.shutting_down)
            return _waits(file) not in map(_lane, others)

    return Lanes(config, log)


def _lane(node: WorkerController) -> bool:
    return LANES[int(node.gateway.id.removeprefix("gw")) % len(LANES)]


def _waits(name: str) -> bool:
    return "/cluster/" in name


@cache
def _is_short(file: str) -> bool:
    """Whether it is of unit tests, and no process is forked in it."""
    return "/models/" not in file and "fork" not in (ROOT / file).read_text(encoding="utf-8")


def _place(file: str) -> tuple[float, bool]:
    """Return where a file comes: what takes longest begins first, or it would end long after the others."""
    return -last_full_run().rooms_s.get(file, 0.0), "/models/" not in file
