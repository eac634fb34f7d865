"""Start another Python that imports our modules, and none from the current folder.

The current folder may be a stranger's. A module in it must not replace one of ours.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import framefleet

HOME = str(Path(framefleet.__file__).parents[1])  # where `framefleet` is, in case it is not installed


def python(*arguments: str) -> list[str]:
    """Return the command that runs Python with these arguments."""
    return [sys.executable, "-P", *arguments]


def module_path() -> str:
    """Return the PYTHONPATH with which it finds all modules that this process finds."""
    return os.pathsep.join([*filter(None, sys.path), HOME])
