"""Jobs with `until` for tests, and a score that about one clip in three passes, whatever renders it."""

from __future__ import annotations

import hashlib
from typing import Any


def third(frames: Any, record: Any) -> float:
    """A number from 0 to 1 by the clip's frames."""
    return int(hashlib.sha256(frames.tobytes()).hexdigest()[:8], 16) / 2**32
