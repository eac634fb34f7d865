"""A Chromium of this machine, headless; tests that need one are skipped without."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WIDE, PHONE = {"width": 1200, "height": 800}, {"width": 390, "height": 844}
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def chromium() -> str:
    """Return where it is; skips the test where there is none."""
    named = os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"needs a Chromium: none of {', '.join(NAMES)} is on PATH, and CHROMIUM is not set")
    return found


@contextmanager
def browser() -> Iterator[Browser]:
    """Yield a browser of its own."""
    path = chromium()
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=180_000)
        try:
            yield opened
        finally:
            opened.close()
