"""Leftovers of killed writers go when the next driver begins, and none of that can end a run."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from framefleet import Store
from framefleet.pipeline.outputs.stores.store import sweep_in_background


def test_leftovers_are_removed_beside_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    left = tmp_path / ".framefleet-0123"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    with caplog.at_level(logging.INFO):
        sweep_in_background(Store(str(tmp_path))).join(120)
    assert not left.exists()
    assert "removed half-written files of earlier runs: 1" in caplog.text


def test_a_store_that_cannot_be_swept_is_left_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    store = Store("ftp://127.0.0.1:1/run", outage_s=0)
    with caplog.at_level(logging.INFO):
        sweep_in_background(store).join(120)  # a store of this kind leaves nothing to sweep
    assert "Traceback" not in caplog.text
