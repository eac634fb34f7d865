"""What docs/export.md says of reading an export runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import framefleet
from framefleet import Store
from tests.small_output import PROMPT, rendered

PAGE = Path(__file__).parents[2] / "docs/export.md"
SNIPPETS = dict(re.findall(r"```python (\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL))


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(format: Any) -> dict[str, Any]:
        names: dict[str, Any] = {}
        exec(
            SNIPPETS[format].replace("DEST", str(tmp_path / "to")).replace("OUTPUT", str(tmp_path / "out")),
            names,
        )
        return names

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return run


@pytest.mark.parametrize("format", ["webdataset", "parquet", "hf"])
def test_the_page_reads_what_it_exports(tmp_path: Path, format: Any, read: Any) -> None:
    records = rendered(Store(str(tmp_path / "out")), 4)
    framefleet.export(str(tmp_path / "out"), str(tmp_path / "to"), format=format)
    names = read(format)
    if format == "webdataset":
        assert names["prompt"] == f"{PROMPT} 3"
        assert tuple(names["clips"].shape) == (2, 3, 32, 48, 3)
        assert list(names["prompts"]) == [f"{PROMPT} 0", f"{PROMPT} 1"]
    if format == "parquet":
        assert len(names["clip"]) == records[0]["bytes"]
        assert [row[0] for row in names["found"]] == [record["row_id"] for record in records[:2]]
    if format == "hf":
        assert Path(names["path"]).read_bytes()[4:8] == b"ftyp"
        assert sorted(names["dataset"]["seed"]) == [0, 1, 2, 3]


def test_the_page_writes_tables_of_records(tmp_path: Path, read: Any) -> None:
    import deltalake
    import lance

    records = rendered(Store(str(tmp_path / "out")), 4)
    uris = sorted(record["uri"] for record in records)
    to = tmp_path / "to"
    to.mkdir()
    table = read("iceberg")["catalog"].load_table("videos.run7")
    read("delta")
    read("lance")
    read_back = [
        table.scan().to_arrow(),
        deltalake.DeltaTable(str(to)).to_pyarrow_table(),
        lance.dataset(str(to)).to_table(),
    ]
    assert [sorted(table["uri"].to_pylist()) for table in read_back] == [uris] * 3
