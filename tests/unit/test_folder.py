"""Folders: file systems that lack something, names that others hold, and processes that are killed."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from framefleet import JobError, ModelError, Store, StoreError
from framefleet.pipeline.outputs.stores import folder
from framefleet.pipeline.outputs.stores.object_store import Stored
from framefleet.pipeline.outputs.stores.store import sweep_in_background
from framefleet.plugins.keep.new_folder import UNFINISHED, new_folder
from framefleet.plugins.ports.conversion.convert import whole_folder
from tests.creates import losers_of_a_race


@contextmanager
def mounted(at: Path, *options: str) -> Iterator[Path]:
    """Mount a file system for as long as the block runs; skip the test where that is not allowed."""
    at.mkdir()
    done = subprocess.run(["mount", *options, str(at)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as place:
        yield place


@pytest.fixture(params=["refused", "exfat"])
def without_links(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder where os.link is refused: by this process, and by a file system that has no links."""
    if request.param == "refused":

        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refuse)
        yield tmp_path
        return
    if not shutil.which("mkfs.exfat"):
        pytest.skip("needs mkfs.exfat")
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.exfat", str(image)], check=True, capture_output=True)
    kind = "exfat-fuse" if shutil.which("mount.exfat-fuse") else "exfat"
    with mounted(tmp_path / "exfat", "-t", kind, "-o", "loop", str(image)) as place:
        yield place


def test_without_hard_links_of_many_creates_one_wins(without_links: Path) -> None:
    store = Store(str(without_links / "out"))
    conflicts = losers_of_a_race(store, "driver.lock", num_creators=16)
    assert len(conflicts) == 15
    assert int(store.read("driver.lock")) not in conflicts
    store.create("driver.lock", store.read("driver.lock"))
    assert os.listdir(without_links / "out") == ["driver.lock"]


def test_without_hard_links_what_a_killed_creator_claimed_is_free_again(without_links: Path) -> None:
    claim = without_links / ".framefleet-claim-job.json"
    claim.touch()
    os.utime(claim, (0, time.time() - 60))
    store = Store(str(without_links))
    store.create("job.json", b"1")
    assert store.read("job.json") == b"1"
    assert not claim.exists()


def test_a_full_disk_is_an_error_that_says_so_and_leaves_nothing(small: Path) -> None:
    store = Store(str(small / "out"))
    store.write("clips/one.mp4", bytes(600_000))
    for call in (store.create, store.write):
        with pytest.raises(StoreError, match="No space left") as caught:
            call("clips/two.mp4", bytes(600_000))
        assert (caught.value.kind, caught.value.may_pass) == ("full", False)
        assert "make room" in caught.value.fix
    assert os.listdir(small / "out" / "clips") == ["one.mp4"]
    store.delete("clips/one.mp4")
    store.create("clips/two.mp4", bytes(600_000))
    assert store.list("clips") == ["clips/two.mp4"]


def test_a_read_only_folder_is_an_error_that_says_so(tmp_path: Path) -> None:
    with mounted(tmp_path / "out", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as place:
        store = Store(str(place))
        store.write("job.json", b"{}")
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        with pytest.raises(StoreError, match="Read-only file system") as caught:
            store.create("clips/one.mp4", b"1")
        assert caught.value.kind == "refused"
        assert store.read("job.json") == b"{}"


def test_an_output_that_is_removed_is_not_begun_anew(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "out"))
    store.write("job.json", b"{}")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(StoreError, match="the folder was removed") as caught:
        store.create("clips/one.mp4", b"1")
    assert caught.value.kind == "missing"
    assert not (tmp_path / "out").exists()


def test_what_killed_writers_left_is_swept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    store = Store(str(tmp_path / "out"))
    assert store.sweep() == 0
    store.write("clips/ab/one.mp4", b"1")
    left, fresh = (tmp_path / "out" / "clips" / "ab" / f".framefleet-{name}" for name in ("left", "fresh"))
    for file in (left, fresh):
        file.write_bytes(b"half")
    os.utime(left, (0, time.time() - 3600))
    sweep_in_background(store).join(120)
    assert "removed half-written files of earlier runs: 1" in caplog.text
    assert sorted(os.listdir(left.parent)) == [fresh.name, "one.mp4"]
    elsewhere = Store("ftp://127.0.0.1:1/run", outage_s=0)  # of a kind that leaves nothing to sweep
    sweep_in_background(elsewhere).join(120)
    assert "Traceback" not in caplog.text


def test_files_deleted_while_a_folder_is_listed_and_links_to_nothing_are_left_out(tmp_path: Path) -> None:
    class Late(folder.Folder):
        def stat(self, path: str) -> Stored:
            (tmp_path / "b.mp4").unlink(missing_ok=True)
            return super().stat(path)

    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(b"a")
    (tmp_path / "d.mp4").symlink_to("nowhere")
    assert list(Late(tmp_path).details("")) == ["a.mp4", "c.mp4"]


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


@pytest.mark.parametrize("was_there", [True, False])
def test_what_fails_leaves_a_folder_as_it_was(
    was_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a" / "b"
    if was_there:
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
    with pytest.raises(KeyboardInterrupt), new_folder(Path() if was_there else folder):
        (folder / "half" / "of").mkdir(parents=True)
        (folder / "half" / "of" / "it").touch()
        (folder / "link").symlink_to(tmp_path)
        raise KeyboardInterrupt
    assert folder.exists() == was_there and tmp_path.exists()
    assert not was_there or os.listdir(folder) == []


def test_only_a_folder_that_was_not_finished_is_filled_again(tmp_path: Path) -> None:
    with new_folder(tmp_path / "made"):
        (tmp_path / "made" / "whole").touch()
    (killed := tmp_path / "killed").mkdir()
    for name in ("half", UNFINISHED):
        (killed / name).touch()
    with new_folder(killed):
        assert os.listdir(killed) == [UNFINISHED]
        (killed / "whole").touch()
    (tmp_path / "file").touch()
    for name in ("made", "killed", "file"):
        with pytest.raises(JobError, match=f"{name} is not an empty folder"), new_folder(tmp_path / name):
            raise AssertionError
    assert os.listdir(killed) == os.listdir(tmp_path / "made") == ["whole"]
