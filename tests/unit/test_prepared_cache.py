"""What rows prepared: kept in the output, resumed, shared by ranks, read back in any order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from framefleet import Inputs, Store, TableError
from framefleet.api.clips import Frames, Media, encode
from framefleet.plugins.train.dataset import prepared_cache as module
from framefleet.plugins.train.dataset.batches import TrainingRows
from framefleet.plugins.train.dataset.prepared_cache import PreparedRows
from framefleet.plugins.train.task import Bucket, Prepared, TrainingRow
from tests.media_files import sha256

BUCKET = Bucket(num_frames=3, height=16, width=16)


class MeanColour:
    """Prepares the mean of the frames, and a tensor that is the same for all rows."""

    trained: Mapping[str, nn.Module] = {}

    def __init__(self, *, keeps_prepared: bool) -> None:
        self.keeps_prepared = keeps_prepared
        self.prepared: list[int] = []

    def prepare(self, row: TrainingRow, frames: Frames | None) -> Prepared:
        assert frames is not None and not torch.is_grad_enabled()
        self.prepared.append(row.index)
        return {"mean": torch.tensor(float(frames.mean())), "empty": torch.ones(1000)}

    def loss(self, batch: Sequence[Prepared], generator: torch.Generator) -> Tensor:
        raise NotImplementedError


@pytest.fixture
def rows(tmp_path: Path) -> TrainingRows:
    made = []
    for number in range(7):
        frames = np.full((3, 16, 16, 3), 30 * number, np.uint8)
        content = encode(frames, media=Media(format="mkv"), fps=8, metadata={})
        path = tmp_path / f"{number}.mkv"
        path.write_bytes(content)
        row: dict[str, Any] = {"video": str(path), "sha256": sha256(content), "arguments": {"prompt": "x"}}
        made.append(TrainingRow(index=number, bucket=BUCKET, **row))
    return TrainingRows(made)


@pytest.fixture
def open_rows(rows: TrainingRows, tmp_path: Path) -> Callable[..., PreparedRows]:
    def opened(task: MeanColour, output: str | None = None, **identity: Any) -> PreparedRows:
        store = Store(output or str(tmp_path / "out"))
        read = Inputs([str(tmp_path)]).read
        return PreparedRows(rows, task, read, store=store, identity=identity)

    return opened


def _means(rows: PreparedRows) -> list[float]:
    return [rows[i]["mean"].item() for i in reversed(range(len(rows)))][::-1]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SHARD_ROWS", 2)


def test_rows_are_prepared_once_and_found_by_the_next_run(open_rows: Callable[..., PreparedRows]) -> None:
    first, second = MeanColour(keeps_prepared=True), MeanColour(keeps_prepared=True)
    seen: list[int] = []
    open_rows(first).prepare(progress=seen.append)
    again = open_rows(second)
    again.prepare()
    assert seen == [2, 4, 6, 7] and second.prepared == []
    assert _means(again) == [30.0 * number for number in range(7)]


def test_a_killed_run_makes_what_is_missing(open_rows: Callable[..., PreparedRows], tmp_path: Path) -> None:
    open_rows(MeanColour(keeps_prepared=True)).prepare()
    next((tmp_path / "out").rglob("000001.safetensors")).unlink()
    task = MeanColour(keeps_prepared=True)
    rows = open_rows(task)
    rows.prepare()
    assert task.prepared == [2, 3] and _means(rows) == [30.0 * number for number in range(7)]


def test_ranks_share_the_work_and_read_each_others(open_rows: Callable[..., PreparedRows]) -> None:
    tasks = [MeanColour(keeps_prepared=True) for _ in range(2)]
    parts = [open_rows(task) for task in tasks]
    for rank, rows in enumerate(parts):
        rows.prepare(rank=rank, world_size=2)
    assert [sorted(set(task.prepared)) for task in tasks] == [[0, 1, 4, 5], [2, 3, 6]]
    assert _means(parts[0]) == _means(parts[1]) == [30.0 * number for number in range(7)]


def test_what_is_not_kept_is_made_when_asked(open_rows: Callable[..., PreparedRows], tmp_path: Path) -> None:
    kept = open_rows(MeanColour(keeps_prepared=True))
    made = open_rows(task := MeanColour(keeps_prepared=False))
    kept.prepare()
    made.prepare()
    assert task.prepared == []
    assert _means(made) == _means(kept) == _means(made)
    assert len(task.prepared) == 7  # the second time from memory


def test_another_identity_finds_nothing_of_the_first(open_rows: Callable[..., PreparedRows]) -> None:
    open_rows(MeanColour(keeps_prepared=True), model="a").prepare()
    task = MeanColour(keeps_prepared=True)
    open_rows(task, model="b").prepare()
    assert set(task.prepared) == set(range(7))


def test_equal_tensors_are_stored_once(open_rows: Callable[..., PreparedRows], tmp_path: Path) -> None:
    open_rows(MeanColour(keeps_prepared=True)).prepare()
    (shard,) = (tmp_path / "out").rglob("000000.safetensors")
    assert 4000 < shard.stat().st_size < 5000


def test_rows_of_an_object_store_are_read_from_local_copies_that_leave_nothing_behind(
    open_rows: Callable[..., PreparedRows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path / "cache"))
    rows = open_rows(MeanColour(keeps_prepared=True), f"memory://{tmp_path.name}")
    rows.prepare()
    assert _means(rows) == _means(rows) == [30.0 * number for number in range(7)]
    assert (tmp_path / "cache" / "prepared").is_dir()
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_parts_of_one_file_read_it_once_more_than_its_start(tmp_path: Path) -> None:
    frames = np.repeat(np.arange(12, dtype=np.uint8), 16 * 16 * 3).reshape(12, 16, 16, 3)
    path = tmp_path / "shared.mkv"
    path.write_bytes(content := encode(frames, media=Media(format="mkv"), fps=8, metadata={}))
    file: dict[str, Any] = {"video": str(path), "sha256": sha256(content), "arguments": {}, "bucket": BUCKET}
    rows = TrainingRows(TrainingRow(index=i, first_frame=3 * i, **file) for i in range(4))
    read: list[str] = []

    def counted(uri: str) -> bytes:
        read.append(uri)
        return Inputs([str(tmp_path)]).read(uri)

    prepared = PreparedRows(
        rows, MeanColour(keeps_prepared=True), counted, store=Store(str(tmp_path / "out")), identity={}
    )
    prepared.prepare()
    assert [prepared[i]["mean"].item() for i in range(4)] == [1.0, 4.0, 7.0, 10.0]
    assert read.count(str(path)) == 3  # of them one for how many rows fit into a shard


def test_a_changed_video_is_refused_by_row(open_rows: Callable[..., PreparedRows], tmp_path: Path) -> None:
    (tmp_path / "3.mkv").write_bytes((tmp_path / "4.mkv").read_bytes())
    with pytest.raises(TableError, match=r"row 3: video is '.*3\.mkv', but the file has changed since"):
        open_rows(MeanColour(keeps_prepared=False))[3]
