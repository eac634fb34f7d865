"""A folder of images or videos is a table: a row for each file, and its prompt from a text next to it."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from framefleet.pipeline.rows.tables.table import open_table
from tests.unit.test_table_folders import refusal, rows


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("b.jpg", "a.PNG", "sea/c.webp", ".hidden.png", "_old/d.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"any")
    (folder / "notes.md").write_text("no row")
    return folder


def test_each_file_is_a_row_in_a_fixed_order(photos: Path) -> None:
    names = ["a.PNG", "b.jpg", "sea/c.webp"]
    assert rows(photos) == [{"image": name, "file": name} for name in names]
    table = open_table(f"{photos}/")
    assert table.num_rows == 3 and table.stamps() == open_table(str(photos)).stamps()
    (photos / "d.png").touch()
    assert open_table(str(photos)).stamps() != table.stamps()


def test_texts_of_the_same_name_are_prompts(photos: Path) -> None:
    (photos / "a.txt").write_text("﻿ a fox \n", "utf-8")
    (photos / "sea" / "c.txt").write_text("Füchse", "utf-8")
    (photos / "other.txt").write_text("of no file")
    assert [row["prompt"] for row in rows(photos)] == ["a fox", None, "Füchse"]


def test_videos_are_rows_too_also_in_a_bucket() -> None:
    bucket = fsspec.filesystem("memory")
    for name, content in {"b.mp4": b"v", "a.mkv": b"v", "a.txt": b"rain"}.items():
        bucket.pipe_file(f"/films/{name}", content)
    assert rows("memory://films") == [
        {"video": "a.mkv", "file": "a.mkv", "prompt": "rain"},
        {"video": "b.mp4", "file": "b.mp4", "prompt": None},
    ]


def test_table_files_go_before_images(photos: Path) -> None:
    (photos / "metadata.jsonl").write_text('{"prompt": "a"}\n')
    assert rows(photos) == [{"prompt": "a"}]


def test_what_cannot_be_used_is_refused(photos: Path) -> None:
    (photos / "a.txt").write_bytes(b"F\xfcchse")
    assert "a.txt is not UTF-8" in refusal(photos).problem
    (photos / "a.txt").write_text("a" * 65_537)
    assert "a.txt is longer than 65,536 bytes" in refusal(photos).problem
    (photos / "film.mp4").touch()
    assert "images and videos" in refusal(photos).problem and "one kind" in refusal(photos).fix
    (photos / "none").mkdir()
    assert "no table files" in refusal(photos / "none").problem
