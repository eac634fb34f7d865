"""CUDA starts with the numerics of `matmul: no_split_k`, whichever test comes first."""

from __future__ import annotations

import pytest
import torch

from framefleet.pipeline.model.numerics import NO_SPLIT_K, Numerics


@pytest.fixture(autouse=True, scope="session")
def _no_split_k() -> None:
    if torch.cuda.is_available():
        Numerics(threads=1, matmul=NO_SPLIT_K).apply()
