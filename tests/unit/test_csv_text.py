"""CSV and JSON as programs write them: the cells that were written, or a refusal with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from framefleet.pipeline.errors import JobError, TableError
from framefleet.pipeline.rows.sweeps.factors import lines_of
from framefleet.pipeline.rows.tables.formats import likely_encoding, to_utf_8
from framefleet.pipeline.rows.tables.row_cells import odd_cells, readable
from framefleet.pipeline.rows.tables.table import open_table


def rows_of(table: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of a table, and what is wrong with their cells."""
    rows, problems = [], []
    for _, batch in table.batches():
        problems += [str(one) for some in odd_cells(batch).values() for one in some]
        rows += batch.select(table.schema.names).to_pylist()
    return rows, problems


def read(folder: Path, name: str, text: str) -> tuple[list[dict[str, Any]], list[str]]:
    (folder / name).write_bytes(text.encode())
    return rows_of(open_table(str(folder / name), arguments={"seed": "int"}))


def refusal(folder: Path, name: str, text: str) -> TableError:
    with pytest.raises(TableError) as caught:
        read(folder, name, text)
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        *("0001", "12e4567", "12345678901234567890", "+33612345678", "1e5", "1.10", "-0", "0x10", "1_000"),
        *("12:30", "2026-01-01T12:30:00Z", "NaN", "inf", "NA", ".5", "5.", "tRuE", '="0001"', "1,5"),
    ],
)
def test_a_text_that_does_not_come_back_from_a_number_stays_text(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, "t.csv", f"prompt;id\na;{text}\n")[0] == [{"prompt": "a", "id": text}]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("5", 5), ("-5", -5), ("0.5", 0.5), ("5.0", 5.0), (" 7 ", 7), ("true", True), ("1e-05", 1e-05)),
        *(("0.30000000000000004", 0.30000000000000004), ("9223372036854775807", 2**63 - 1)),
    ],
)
def test_the_usual_ways_to_write_a_value_are_read(text: str, value: Any, tmp_path: Path) -> None:
    (row,), _ = read(tmp_path, "t.csv", f"prompt,n\na,{text}\n")
    assert row["n"] == value and type(row["n"]) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "problem", "fix"),
    [
        ("t.csv", 'prompt,n\nb,1\n"Stop" says,1\n', "line 3: the cell that begins with", '"""Stop'),
        ("t.csv", 'prompt,n\n"a \\"b\\" c",1\n', "text follows its closing quote mark", "in Spark"),
        ("t.csv", 'prompt,n\n"a,1\nb,2\n', "its quote mark is never closed", "JSONL"),
        ("t.csv", 'prompt,n\n"a,1\nb",2\n', "each of them looks like a row", "JSONL"),
        ("t.csv", 'prompt,n\n"' + "a\n" * 2_000_000 + '",1\n', "it is not closed within 1 MiB", "JSONL"),
        ("t.tsv", 'prompt\tn\n"say ""a"""\t1\n"b" c\t2\n', "line 3", "JSONL"),
        ("t.csv", 'prompt,n\n"a", "1"\n', "line 2: the cell that begins with ' \"1", "quote the whole cell"),
        ("t.csv", 'n,prompt\n1,a\n2,  "a ""b""" \n', "there are spaces before its quote mark", "JSONL"),
        ("t.csv", '"prompt", "n"\n"a, b", 1\n', "line 1: the cell that begins with ' \"n", "JSONL"),
        ("t.csv", 'prompt,n\ra,1\r"b" c,2\r', "line 3", "JSONL"),
        ("t.csv", '"prompt,n\n' + "a,1\n" * 40_000, "line 1", "JSONL"),
        ("t.tsv", 'prompt\tn\n"b" c\t2\n' + "d\t1\n" * 300_000 + '"say ""a"""\t1\n', "line 300003", "JSONL"),
    ],
)
def test_a_quote_mark_with_two_meanings_is_refused(
    name: str, text: str, problem: str, fix: str, tmp_path: Path
) -> None:
    error = refusal(tmp_path, name, text)
    assert problem in error.problem and fix in error.fix


@pytest.mark.parametrize(
    ("name", "text", "prompts"),
    [
        ("t.tsv", 'prompt\tn\n"O P" in neon\t1\n"b\t2\n', ['"O P" in neon', '"b']),
        ("t.csv", 'prompt,n\na 5" disk,1\n"b ""c""",2\n', ['a 5" disk', 'b "c"']),
        ("t.csv", 'prompt,n\r\n"a, b\r\nc",1\r\n', ["a, b\r\nc"]),
        ("t.csv", 'sep=;\r\nprompt;n\r\n"a;b";1\r\n', ["a;b"]),
        ("t.csv", '\ufeff"prompt";n\r"a";1\r', ["a"]),
        ("t.csv", 'prompt,n\n"he says, ""no""",1\n"a, ""b"", c",2\n', ['he says, "no"', 'a, "b", c']),
        ("t.csv", 'prompt|n\n"a|b"|1\n', ["a|b"]),
        ("t.csv", 'prompt,n\n"' + '"",""' * 10_000 + '",1\nb,2\n', ['","' * 10_000, "b"]),
    ],
)
def test_quote_marks_with_one_meaning_are_read(
    name: str, text: str, prompts: list[str], tmp_path: Path
) -> None:
    rows, problems = read(tmp_path, name, text)
    assert not problems
    assert [row["prompt"] for row in rows] == prompts


def test_what_spreadsheets_leave_behind_is_left_out_or_reported_once(tmp_path: Path) -> None:
    rows, problems = read(tmp_path, "t.csv", "prompt,n,,\na,1,,\n,,,\nb,2,,\n")
    assert [*rows[0]] == ["prompt", "n"] and len(rows) == 3
    assert problems == ["every cell is empty, but a row needs a cell"]
    late = "prompt,n,\n" + "a,1,\n" * 300_000 + "b,2,x\n"
    assert read(tmp_path, "t.csv", late)[1] == ["column 3 is 'x', but the header has no name for its column"]


def test_a_second_header_of_joined_files_is_refused(tmp_path: Path) -> None:
    text = ",prompt,style\n0,a,x\n,prompt,style\n1,b,y\n,style,prompt\n,\ufeffprompt,style\n2,prompt,oil\n"
    rows, problems = read(tmp_path, "t.csv", text)
    assert len(rows) == 6 and rows[-1]["prompt"] == "prompt"
    again = "the line is ',prompt,style', but that is the header again, maybe because files were joined"
    assert problems == [again] * 3
    assert read(tmp_path, "t.tsv", "prompt\na\nprompt\n")[1] == [again.replace(",prompt,style", "prompt")]


def test_lines_above_the_header_are_not_taken_for_it(tmp_path: Path) -> None:
    error = refusal(tmp_path, "t.csv", "My prompts,,\nprompt,seed,style\na,1,x\n")
    assert "no names for the columns 2 and 3" in error.problem and "must be the header" in error.fix
    assert "must be the header" in refusal(tmp_path, "t.csv", "# by me\nprompt,seed\na,1\n").fix


def test_columns_without_a_name_may_differ_between_files(tmp_path: Path) -> None:
    for number, text in enumerate(("prompt,\na,x\n", "prompt\nb\n", "prompt,,\nc,y,z\n")):
        (tmp_path / f"{number}.csv").write_text(text)
    rows, problems = rows_of(open_table(str(tmp_path)))
    assert [row[""] for row in rows] == ["x", None, "y"]
    assert problems == ["column 3 is 'z', but the header has no name for its column"]
    (tmp_path / "1.csv").write_text("prompt,x,x\nb,2,3\n")
    with pytest.raises(TableError, match=r"1.csv has the column 'x' twice"):
        rows_of(open_table(str(tmp_path)))


@pytest.mark.parametrize(
    "text",
    [
        '[{"prompt": "a", "n": 1}, {"prompt": "b]}", "n": 2}]',
        '[\n  {\n    "prompt": "a",\n    "n": 1\n  },\n  {\n    "prompt": "b]}",\n    "n": 2\n  }\n]\n',
    ],
)
def test_an_array_of_json_is_read(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, "t.json", text)[0] == [{"prompt": "a", "n": 1}, {"prompt": "b]}", "n": 2}]


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("t.json", '[\n  {"prompt": "a"},\n  {"prompt":\n "b"}, {"prompt": "c"}\n]', [2, 3, 4]),
        ("t.csv", "sep=;\nprompt;n\na;1\nb;2\n", [3, 4]),
    ],
)
def test_rows_have_lines(name: str, text: str, lines: list[int], tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    places = open_table(str(tmp_path / name)).places(list(range(len(lines))))
    assert places == {row: f"line {line}" for row, line in enumerate(lines)}


def test_a_number_of_json_that_floats_do_not_hold_is_refused_and_a_seed_keeps_its_digits(
    tmp_path: Path,
) -> None:
    for number in ("1e400", "0.10000000000000000001", "123456789012345678.5"):
        _, problems = read(tmp_path, "t.jsonl", f'{{"n": 0.5}}\n{{"n": {number}}}\n')
        assert problems == [f"n is {number!r}, but a number cannot store all its digits"]
    seeds = ["1.5668E+14", "9007199254740993.0", "7"]
    rows, _ = read(tmp_path, "t.jsonl", "".join(f'{{"seed": {seed}}}\n' for seed in seeds))
    assert [row["seed"] for row in rows] == seeds


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
