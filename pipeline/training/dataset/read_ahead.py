"""In: how to load what a step needs. Out: one step's after another, loaded while the last one computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

STEPS_AHEAD = 2  # one is ready, one is being read

T = TypeVar("T")


def read_ahead(load: Callable[[int], T], steps: Iterable[int]) -> Iterator[T]:
    """Yield `load(step)` for each of `steps`, in order."""
    remaining = iter(steps)
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
        waiting = deque(reader.submit(load, step) for step in islice(remaining, STEPS_AHEAD))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(reader.submit(load, step) for step in islice(remaining, 1))
