"""What torchao says as it is imported is said where a job quantises by it.

That a command says nothing of it: tests/models/test_light_start.py.
"""

from __future__ import annotations

import logging
from enum import Enum

import pytest

from framefleet.pipeline.model.options.schema import TorchAo
from framefleet.pipeline.model.options.torchao_import import keep_import_warnings, say_import_warnings
from framefleet.pipeline.model.options.tuning import check_quantization

LACKS = "Failed to load _C_cutlass_90a.abi3.so: Could not load this library"


@pytest.fixture(autouse=True)
def kept() -> None:
    """Nothing is kept yet of another test's import."""
    say_import_warnings()
    keep_import_warnings()


def test_kernels_that_torchao_lacks_are_told_where_a_job_quantises_by_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.clear()
    logging.getLogger("torchao").warning(LACKS)
    assert caplog.messages == []
    for _ in range(2):
        check_quantization(TorchAo(backend="torchao", type="int8_weight_only"), device="cpu")
    assert caplog.messages == [f"torchao: {LACKS}"]


def test_whatever_else_torchao_or_torch_says_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    logging.getLogger("torchao").warning("int8 overflows")
    logging.getLogger("torch.utils._pytree").warning("%s is registered twice", Enum("Ours", "A"))
    say_import_warnings()
    assert len(caplog.messages) == 2
