"""How this process starts another Python, which imports ours and nothing of the current folder.

That may be a stranger's. A module in it must not take the place of one of ours.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import framefleet

HOME = str(Path(framefleet.__file__).parents[1])  # where `framefleet` is, should it not be installed


def python(*arguments: str) -> list[str]:
    """Return the command."""
    return [sys.executable, "-P", *arguments]


def module_path() -> str:
    """Return its PYTHONPATH, with which it finds what this process finds elsewhere."""
    return os.pathsep.join([*filter(None, sys.path), HOME])
