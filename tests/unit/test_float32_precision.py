"""Who set the precision of float32 products, and by which of torch's two ways, makes no difference to us."""

from __future__ import annotations

import pytest

from tests.warm.process import start

PROGRAM = """
import torch
from framefleet.pipeline.model.torch_modes import TorchModes
from framefleet.pipeline.render.findings import _settings_of_torch

{given}
before = _settings_of_torch()
modes = TorchModes()
{changed}
print(*modes.differences(), sep="|")
modes.restore()
print(not list(modes.differences()), _settings_of_torch() == before)
"""
OLD = "torch.set_float32_matmul_precision('{}')"
NEW = "torch.backends.cuda.matmul.fp32_precision = '{}'"


@pytest.mark.parametrize("given", ["", OLD.format("high"), NEW.format("tf32"), NEW.format("ieee")])
@pytest.mark.parametrize(
    "changed", [OLD.format("medium"), "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'"]
)
def test_a_precision_that_a_row_sets_is_found_and_put_back(given: str, changed: str) -> None:
    printed, _ = start("-c", PROGRAM.format(given=given, changed=changed)).communicate(timeout=120)
    differences, restored = printed.splitlines()[-2:]
    assert "the precision of float32 products" in differences
    assert restored == "True True", printed
