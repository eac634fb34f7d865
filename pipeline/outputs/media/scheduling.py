"""What an encoder may not do to the threads of a worker."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def scheduling_kept() -> Iterator[None]:
    """Give every thread that becomes real-time meanwhile the policy of this one as it was; on Linux.

    Where root opens SVT-AV1, it makes the thread that does so, and its own, first-in first-out at the highest
    priority, and leaves them so. Whatever that thread, and each process that it starts, computes would then
    leave all others 5 % of a core: no other worker, Ray or lock of a driver beats in time.
    https://gitlab.com/AOMediaCodec/SVT-AV1/-/blob/v4.1.0/Source/Lib/Globals/enc_handle.c
    """
    if sys.platform != "linux":
        yield
        return
    policy, parameters, before = os.sched_getscheduler(0), os.sched_getparam(0), _real_time_threads()
    try:
        yield
    finally:
        for thread in _real_time_threads() - before:
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setscheduler(thread, policy, parameters)


def _real_time_threads() -> set[int]:
    found = set()
    for thread in map(int, os.listdir("/proc/self/task")):
        with suppress(ProcessLookupError):
            if os.sched_getscheduler(thread) == os.SCHED_FIFO:
                found.add(thread)
    return found
