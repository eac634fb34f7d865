"""What torchao says as it is imported is said where a job quantises by it.

That a command says nothing of it: tests/models/test_light_start.py.
"""

from __future__ import annotations

import logging
from enum import Enum

import pytest

from framefleet.pipeline.model.options import torchao_import
from framefleet.pipeline.model.options.schema import TorchAo
from framefleet.pipeline.model.options.torchao_import import keep_import_warnings
from framefleet.pipeline.model.options.tuning import check_quantization

LACKS = "Failed to load _C_cutlass_90a.abi3.so: Could not load this library"


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was kept, without what another test's import left."""
    found: list[str] = []
    monkeypatch.setattr(torchao_import, "_warnings", found)
    keep_import_warnings()
    return found


def test_kernels_that_torchao_lacks_are_told_where_a_job_quantises_by_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logging.getLogger("torchao").warning(LACKS)
    assert caplog.messages == []
    for _ in range(2):
        check_quantization(TorchAo(backend="torchao", type="int8_weight_only"), device="cpu")
    assert caplog.messages == [f"torchao: {LACKS}"]


def test_whatever_else_torchao_or_torch_says_is_said(
    caplog: pytest.LogCaptureFixture, kept: list[str]
) -> None:
    logging.getLogger("torchao").warning("int8 overflows")
    logging.getLogger("torch.utils._pytree").warning("%s is registered twice", Enum("Ours", "A"))
    assert len(caplog.messages) == 2
    assert not kept
