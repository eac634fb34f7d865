"""Files that are not UTF-8: what they are is named, how their text then reads, and how to convert them."""

from __future__ import annotations

from pathlib import Path

import pytest

from framefleet.pipeline.errors import JobError, TableError
from framefleet.pipeline.rows.sweeps.factors import lines_of
from framefleet.pipeline.rows.tables.formats import likely_encoding, to_utf_8
from framefleet.pipeline.rows.tables.row_cells import readable
from framefleet.pipeline.rows.tables.table import open_table

TEXTS = {
    "cp1252": "Ein Mädchen läuft über die große Straße",
    "cp932": "赤いボールが青い背景で跳ねる",
    "gb18030": "一个红色的球在蓝色背景上弹跳",
    "big5": "一隻貓在海邊奔跑",
    "cp949": "파란 배경에서 빨간 공이 튄다",
    "cp1251": "Красный мяч прыгает на синем фоне",
    "koi8_r": "Красный мяч прыгает на синем фоне",
}


def told(path: Path) -> list[tuple[int, str, str, str]]:
    """Return (row, column, reason, fix) of all refused cells of a table."""
    return [
        (first + offset, one.column, one.why.reason, one.why.fix)
        for first, batch in open_table(str(path)).batches()
        for offset, problems in readable(batch, ["prompt"]).refused.items()
        for one in problems
    ]


@pytest.mark.parametrize("encoding", TEXTS)
def test_the_encoding_of_a_text_is_found_out(encoding: str) -> None:
    assert likely_encoding(TEXTS[encoding].encode(encoding)) == encoding


def test_it_is_found_out_however_late_in_a_text() -> None:
    assert likely_encoding(b"a fox\n" * 20_000 + TEXTS["cp1251"].encode("cp1251")) == "cp1251"


@pytest.mark.parametrize("content", [b"", b"plain", bytes(range(128, 256)) * 9])
def test_bytes_that_are_no_text_have_none(content: bytes) -> None:
    assert likely_encoding(content) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "prompt,note\nein Café,x\na,über\nb,c\n"),
        ("t.tsv", "prompt\tnote\nein Café\tx\na\tüber\nb\tc\n"),
        ("t.jsonl", '{"prompt": "ein Café", "note": "x"}\n{"prompt": "a", "note": "über"}\n{"prompt": "b"}'),
    ],
)
def test_rows_of_a_latin_table_say_how_their_cells_read_and_how_to_convert_the_file(
    name: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    (first, second) = told(tmp_path / name)
    assert first[:3] == (0, "prompt", "it is not UTF-8; as cp1252 it is 'ein Café'")
    assert second[:3] == (1, "note", "it is not UTF-8; as cp1252 it is 'über'")
    ending = Path(name).suffix
    assert first[3].endswith(f"iconv -f cp1252 -t utf-8 t{ending} > t-utf-8{ending}")


@pytest.mark.parametrize(
    ("name", "text"), [("t.csv", "prompt,größe\na,1\n"), ("t.jsonl", '{"prompt": "a", "größe": 1}')]
)
def test_so_does_the_name_of_a_column(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(TableError, match="as cp1252 it is 'größe'") as caught:
        open_table(str(tmp_path / name))
    assert "iconv -f cp1252" in caught.value.fix


def test_a_line_of_json_that_is_cut_by_its_encoding_is_told_with_it(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes('{"prompt": "ソースコードが表示される"}'.encode("cp932"))
    with pytest.raises(TableError, match="it is not UTF-8, and likely cp932"):
        open_table(str(tmp_path / "t.jsonl"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_that_says_what_it_is_is_taken_on_its_word(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"prompt": "a"}\n', encoding=encoding)
    with pytest.raises(TableError, match=r"t\.jsonl is UTF-") as caught:
        open_table(str(tmp_path / "t.jsonl"))
    assert "iconv -f UTF-" in caught.value.fix


def test_lines_of_a_sweep_are_told_the_same_way(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes("a fox\nein Café\n".encode("latin-1"))
    with pytest.raises(JobError, match=r"line 2 is .* as cp1252 it is 'ein Café'") as caught:
        lines_of(str(tmp_path / "p.txt"), "sweep.prompt", {})
    assert "iconv -f cp1252 -t utf-8 p.txt > p-utf-8.txt" in caught.value.fix
    (tmp_path / "p.txt").write_text("ein Café\n", encoding="utf-16")
    with pytest.raises(JobError, match=r"p\.txt is UTF-16"):
        lines_of(str(tmp_path / "p.txt"), "sweep.prompt", {})


def test_a_name_with_spaces_is_quoted_and_a_packed_file_gets_no_line() -> None:
    assert "'my table.csv' > 'my table-utf-8.csv'" in to_utf_8("cp1252", "s3/bucket/my table.csv")
    assert "iconv" not in to_utf_8("cp1252", "t.csv.gz")
