"""What several files of unit tests begin with: an empty output, what configs say of a model, an endpoint."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tenacity import wait_none

from framefleet import Store
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.plugins.words import endpoint
from tests.chat_server import SERVER, Chat
from tests.configs import WAN, write_model
from tests.servers import listening


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


@pytest.fixture(scope="session")
def wan(tmp_path_factory: pytest.TempPathFactory) -> PipelineSpec:
    return inspect_model(write_model(tmp_path_factory.mktemp("wan"), "WanPipeline", WAN))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Endpoints are asked again without a pause, and no request of an earlier test is under way."""
    monkeypatch.setattr(endpoint, "_PAUSE", wait_none())
    endpoint.end_requests()
    monkeypatch.setattr(endpoint, "_over", threading.Event())
    yield
    endpoint.end_requests()


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Chat]:
    with listening(SERVER, tmp_path) as address:
        yield Chat(address)
