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


LATE = b"a fox\n" * 20_000


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        *((text.encode(encoding), encoding) for encoding, text in TEXTS.items()),
        (LATE + TEXTS["cp1251"].encode("cp1251"), "cp1251"),
        *((content, None) for content in (b"", b"plain", bytes(range(128, 256)) * 9)),
    ],
    ids=range(len(TEXTS) + 4),
)
def test_the_encoding_of_a_text_is_found_out(content: bytes, encoding: str | None) -> None:
    assert likely_encoding(content) == encoding


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
    (tmp_path / name).write_bytes(text.replace("note", "größe").encode("latin-1"))  # a column's name
    with pytest.raises(TableError, match=r"as cp1252 it is 'größe'(.|\n)*iconv -f cp1252"):
        open_table(str(tmp_path / name))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp932"])
def test_a_file_that_says_what_it_is_is_taken_on_its_word(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"prompt": "ソースコードが表示される"}\n', encoding=encoding)
    with pytest.raises(TableError, match=r"t\.jsonl is UTF-|it is not UTF-8, and likely cp932") as caught:
        open_table(str(tmp_path / "t.jsonl"))
    assert "iconv -f UTF-" in caught.value.fix or encoding == "cp932"


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
