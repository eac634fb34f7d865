"""Variables that code sets for its process, undone where threads may be reading others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_environment() -> Iterator[None]:
    """Undo the changes that are made to the environment meanwhile, and touch no other variable.

    Threads of Ray and Lance read the environment at any time, and crash in glibc's getenv where it is emptied
    meanwhile, as `mock.patch.dict(os.environ)` does.
    """
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        for name, value in before.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
