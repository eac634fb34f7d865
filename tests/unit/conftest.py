"""What many files of unit tests begin with: an output with nothing in it, and what configs say of a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from framefleet import Store
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from tests.configs import WAN, write_model


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


@pytest.fixture(scope="session")
def wan(tmp_path_factory: pytest.TempPathFactory) -> PipelineSpec:
    return inspect_model(write_model(tmp_path_factory.mktemp("wan"), "WanPipeline", WAN))
