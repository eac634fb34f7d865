"""A fleet that starts while its driver still checks the table: Ray starts, a first worker loads its model.

It serves one driver after another with the same workers, until its context ends.
"""

from __future__ import annotations

import atexit
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from framefleet.cluster.dispatch.faults import FaultPolicy
from framefleet.cluster.fleet.ray_folder import check_parent
from framefleet.cluster.fleet.settings import FleetSettings
from framefleet.cluster.fleet.warm.start import Warm, may_fork, warm
from framefleet.cluster.worker.messages import WorkerSetup
from framefleet.pipeline.errors import FleetError
from framefleet.pipeline.rows.identity import LaneKey

if TYPE_CHECKING:
    from framefleet.cluster.fleet.fleet import Fleet

log = logging.getLogger(__name__)

LOOK_S = 0.5  # between two looks, which a person waits for
LEAVING_LOOK_S = 0.05  # at the end of each job
# Three tries of our own Ray take four minutes; a cluster to join is ready, or never will be.
START_S = 300.0
# To join a Ray that nobody wants any more (or, after two Ctrl-C, to start one); to end a fleet. A call of Ray
# that hangs longer ends with this process.
LEAVE_S, END_S = 15.0, 60.0
URGENT_END_S = 5.0  # after Ctrl-C came twice; a Ray that answers ends in two seconds

_left = threading.Event()


def as_joined(settings: FleetSettings) -> FleetSettings:
    """Return the settings with the cluster that this program uses already, unless they name one."""
    ray = sys.modules.get("ray")
    if settings.address is None and ray is not None and ray.is_initialized():
        return settings.model_copy(update={"address": "auto"})
    return settings


def check_own_ray(settings: FleetSettings) -> None:
    """Raise FleetError if our own Ray should start and this machine has no place for it."""
    if as_joined(settings).address is None:
        check_parent()


class Start:
    """Starts a fleet in steps, as it becomes certain that there is work. The first step may be left out.

    Leaving the context ends the fleet; beginning again after that starts another one.
    """

    # Whether Ctrl-C came twice, so that nothing that hangs is waited for.
    is_urgent: Callable[[], bool] = staticmethod(lambda: False)

    def __init__(self, settings: FleetSettings, faults: FaultPolicy) -> None:
        self.settings, self._faults = settings, faults
        self._stack = ExitStack()
        self._reset()

    def _reset(self) -> None:
        self._warm: Warm | None = None
        self._thread: threading.Thread | None = None
        self._is_there, self._is_over = threading.Event(), threading.Event()
        self._fleet: Fleet | None = None
        self._setups: Mapping[LaneKey, WorkerSetup] = {}  # of the driver that has the fleet, or gets it next
        self._is_used = False  # by an earlier driver
        self._error: BaseException | None = None  # of the start, or the one that ends the context

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        try:
            self._stack.__exit__(*raised)
        finally:
            self._reset()

    def import_libraries(self, *, device: str, threads: int) -> None:
        """Begin to import what workers need, if they can be forks. Call from the main thread."""
        if self._warm is None and may_fork(self.settings, device=device):
            self._warm = self._stack.enter_context(warm(threads=threads))

    def begin(self, setups: Mapping[LaneKey, WorkerSetup], pipelines: Iterable[str]) -> None:
        """Begin to start Ray and one worker, unless that has begun for this driver or an earlier one.

        setups: by lane, the first worker's first. pipelines: the classes of the models.
        """
        self._is_used |= _output_of(self._setups) not in (None, _output_of(setups))
        if self._is_used and not (self._fleet and self._fleet.can_serve(setups)):
            self.__exit__(None, None, None)
        self._setups = setups
        if self._thread is not None:
            _keep_sigterm()
            return
        model = next(iter(setups.values())).model
        if model.engine is None:
            self.import_libraries(device=model.device, threads=model.threads)
        if self._warm:
            for pipeline in dict.fromkeys(pipelines):
                self._warm.prepare(pipeline)
        self._thread = threading.Thread(target=self._run, args=(setups,), name="start", daemon=True)
        self._stack.push(self._end)
        self._thread.start()

    def fleet(self, waiting: Callable[[], None]) -> Fleet:
        """Wait for the fleet and return it; call `waiting` now and then. Raises FleetError if it fails."""
        limit = time.monotonic() + START_S
        while not self._is_there.wait(LOOK_S):
            waiting()
            _keep_sigterm()
            if time.monotonic() > limit:
                raise FleetError(
                    f"Ray has not started, nor let this process join, within {START_S:.0f} s",
                    "look for what hangs here, or at fleet.address, then run the same command again",
                )
        _keep_sigterm()
        if self._fleet is None:
            assert self._error is not None
            raise self._error
        if self._is_used:
            self._fleet.renew(self._setups)
        self._is_used = True
        return self._fleet

    def _run(self, setups: Mapping[LaneKey, WorkerSetup]) -> None:
        """Run as long as the fleet: what Ray starts ends with the thread that started it."""
        try:
            from framefleet.cluster.fleet.fleet import Fleet  # imports Ray

            python = self._warm.py_executable if self._warm else None
            with Fleet(self.settings, setups, self._faults, python=python) as self._fleet:
                self._is_there.set()
                self._is_over.wait()
                if self._error is not None:
                    raise self._error
        except BaseException as error:  # a thread has no caller: raised where the fleet is asked for
            self._error = error
        finally:
            self._is_there.set()

    def _end(self, _: object, error: BaseException | None, *trace: object) -> None:
        thread = self._thread
        assert thread is not None
        was_urgent = self.is_urgent()  # already: even then, workers get a moment to stop
        limit_s = LEAVE_S if self.settings.address or was_urgent else START_S
        end_s = URGENT_END_S if was_urgent else END_S
        is_left = True  # if a third Ctrl-C ends these waits too
        try:
            is_there = self._wait(self._is_there.is_set, limit_s, was_urgent=was_urgent)
            self._error = error
            self._is_over.set()
            end_s = end_s if is_there else 0.0
            is_left = not self._wait(lambda: not thread.is_alive(), end_s, was_urgent=was_urgent)
        finally:
            self._is_over.set()  # also if the first wait was interrupted: the thread ends what it began
            if is_left:
                log.warning("Ray does not answer; it ends with this process")
                if ray := sys.modules.get("ray"):  # its own handler would wait for the call that hangs
                    atexit.unregister(ray.shutdown)
                    from framefleet.cluster.fleet.ray_start import kill_ray  # which imports Ray

                    kill_ray()
            if is_left or self.is_urgent():
                _left.set()  # workers may be ending on threads
        if self._error is not error and self._error is not None:
            raise self._error

    def _wait(self, is_so: Callable[[], bool], limit_s: float, *, was_urgent: bool) -> bool:
        """Wait until it is so, the limit has passed, or Ctrl-C came again; return whether it is so."""
        until = time.monotonic() + limit_s
        while not is_so() and time.monotonic() < until and (was_urgent or not self.is_urgent()):
            time.sleep(LEAVING_LOOK_S)
        return is_so()


def _output_of(setups: Mapping[LaneKey, WorkerSetup]) -> str | None:
    return next((setup.store.url_of("") for setup in setups.values()), None)


def is_ray_left() -> bool:
    """Return whether a call of Ray may hang: Ray's C++ part would wait for it even when the process exits."""
    return _left.is_set()


def _keep_sigterm() -> None:
    """Restore this process's handler: Ray, which starts in another thread, has installed one that aborts."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
