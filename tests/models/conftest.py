"""An output of four rows, rendered once for all files that only read it, a copy to change, and servers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.driven import render_driven
from tests.hub_server import hub
from tests.jobs import job_values, prompt_rows, write_table
from tests.web_server import web

__all__ = ["hub", "web"]


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    render_driven(job_values(write_table(folder / "t.parquet", prompt_rows(4)), folder / "out"))
    return folder / "out"


@pytest.fixture
def out(rendered: Path, tmp_path: Path) -> Path:
    return shutil.copytree(rendered, tmp_path / "out")
