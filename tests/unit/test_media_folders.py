"""A folder of images or videos is a table: a row for each file, and its prompt from a text next to it."""

from __future__ import annotations

import os
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


def test_every_picture_that_rows_can_name_is_a_row_and_the_rest_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = "a.png b.jfif c.gif d.jpe _DSC1.jpg a.TXT b.caption c.txt e.heic f.avif g.heic d.md _old/h.png x"
    for name in [*names.split(), "@eaDir/a.png/SYNO.jpg", "#recycle/a.png", "Thumbs.db", ".DS_Store"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    expected = {"_DSC1.jpg": None, "a.png": "a.TXT", "b.jfif": "b.caption", "c.gif": "c.txt", "d.jpe": None}
    assert {row["image"]: row["prompt"] for row in rows(tmp_path)} == expected
    others = {"2 .heic", "1 .avif", "1 .md", "1 .png", "1 without an ending"}
    assert {*caplog.messages[0].partition("not read: ")[2].split(", ")} == others
    assert [row["image"] for row in rows(f"{tmp_path}/*.jp*")] == ["_DSC1.jpg", "d.jpe"]
    assert "holds 2 .heic" in refusal(f"{tmp_path}/*.heic").problem


def test_files_beside_tables_are_counted_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.csv", "b.xlsx", "c.csv.zst", "d.feather", "_SUCCESS", ".a.csv.crc", "README.md"):
        (tmp_path / name).write_text("prompt\na\n")
    assert rows(tmp_path) == [{"prompt": "a"}]
    assert {*caplog.messages[0].partition("not read: ")[2].split(", ")} == {"1 .xlsx", "1 .zst", "1 .feather"}


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"caf\xe9/a.png", b"caf\xe9.csv"])
def test_a_name_that_is_not_utf_8_is_refused_by_that_name(name: bytes, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    path.parent.mkdir(exist_ok=True)
    path.write_text("prompt\na\n")
    assert "caf\\xe9" in refusal(tmp_path).problem and "rename" in refusal(tmp_path).fix


def test_videos_are_rows_too_also_in_a_bucket() -> None:
    bucket = fsspec.filesystem("memory")
    for name, content in {
        "b.mp4": b"v",
        "a.mkv": b"v",
        "a.txt": b"rain",
        "c.GIF": b"v",
        "d.MTS": b"v",
    }.items():
        bucket.pipe_file(f"/films/{name}", content)
    assert rows("memory://films") == [
        {"video": "a.mkv", "file": "a.mkv", "prompt": "rain"},
        *({"video": name, "file": name, "prompt": None} for name in ("b.mp4", "c.GIF", "d.MTS")),
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
