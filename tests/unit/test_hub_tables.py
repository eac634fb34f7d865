"""A table may be a dataset of the hub, or a file in one."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfFileSystem

from framefleet.pipeline.errors import TableError
from tests.hub_server import HubServer, hub
from tests.unit.test_table_folders import rows

__all__ = ["hub"]  # a fixture


@pytest.fixture
def dataset(hub: HubServer, tmp_path: Path) -> str:
    (tmp_path / "set" / "data").mkdir(parents=True)
    for number in range(2):
        table = pa.table({"prompt": [f"a fox {number}"], "seed": [number]})
        pq.write_table(table, tmp_path / "set" / "data" / f"train-{number}.parquet")
    (tmp_path / "set" / "README.md").write_text("prompts")
    hub.repos["org/prompts"] = tmp_path / "set"
    HfFileSystem.clear_instance_cache()
    return "hf://datasets/org/prompts"


def test_a_dataset_of_the_hub_is_a_table(dataset: str) -> None:
    prompts = ["a fox 0", "a fox 1"]
    assert [row["prompt"] for row in rows(dataset)] == prompts
    assert [row["prompt"] for row in rows(f"{dataset}/data/*.parquet")] == prompts
    assert [row["prompt"] for row in rows(f"{dataset}@main/data/train-1.parquet")] == prompts[1:]
    with pytest.raises(TableError, match="hf://datasets/org/nothing"):
        rows("hf://datasets/org/nothing")
