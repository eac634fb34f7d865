"""A folder that is written as a whole: all of it is there, or nothing is in the way of the next attempt."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from framefleet.pipeline.errors import JobError
from framefleet.plugins.keep.new_folder import UNFINISHED, new_folder


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
