"""Folders that appear whole: names that others hold, processes that are killed, disks without room."""

from __future__ import annotations

import contextlib
import multiprocessing
import re
from pathlib import Path
from typing import Any

import pytest

from framefleet.pipeline.errors import ModelError
from framefleet.plugins.ports.conversion.convert import whole_folder

_FORK: Any = multiprocessing.get_context("fork")


def fill(folder: Path, orders: Any) -> None:
    with whole_folder(folder, 1) as partial:
        partial.mkdir()
        (partial / "first").touch()
        orders.send("half way")
        orders.recv()
        (partial / "second").touch()


@contextlib.contextmanager
def half_way(folder: Path) -> Any:
    """Yield a process that has written half of `folder`, and what lets it go on."""
    mine, theirs = _FORK.Pipe()
    process = _FORK.Process(target=fill, args=(folder, theirs))
    process.start()
    assert mine.poll(120) and mine.recv() == "half way"
    try:
        yield process, mine
    finally:
        process.kill()
        process.join(120)


def test_one_of_two_processes_writes_a_name_and_the_other_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with half_way(folder) as (process, orders):
        with (
            pytest.raises(ModelError, match="out is being written by another process"),
            whole_folder(folder, 1),
        ):
            raise AssertionError("the other one is at it")
        assert not folder.exists()
        orders.send("go on")
        process.join(120)
        assert process.exitcode == 0
    assert sorted(path.name for path in folder.iterdir()) == ["first", "second"]
    assert list(tmp_path.iterdir()) == [folder]


def test_what_a_killed_process_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with half_way(folder) as (process, _):
        process.kill()
        process.join(120)
    assert (tmp_path / ".out.partial" / "first").exists()
    with whole_folder(folder, 1) as partial:
        partial.mkdir()
        assert not any(partial.iterdir())
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_came_meanwhile_or_a_file_in_its_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot be written"), whole_folder(tmp_path / "file" / "out", 1):
        raise AssertionError("it is a file")
    (tmp_path / "file").unlink()
    folder = tmp_path / "out"
    with pytest.raises(ModelError, match="cannot be written"), whole_folder(folder, 1) as partial:
        partial.mkdir()
        (partial / "mine").touch()
        folder.mkdir()
        (folder / "theirs").touch()
    assert [path.name for path in folder.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_disk_without_room_is_told_of_before(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as refused, whole_folder(tmp_path / "out", 34 * 10**18):
        raise AssertionError("there is no room")
    assert re.search(rf"out will take 34[0,]+\.0 GB, and {tmp_path} has [0-9.,]+ GB free", str(refused.value))
    assert "--dtype bf16" in refused.value.fix
    assert not any(tmp_path.iterdir())
