"""Tables as people and programs write them: what is read is what was written, or the table is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.rows.tables.row_cells import odd_cells
from framefleet.pipeline.rows.tables.table import open_table
from tools.fuzz.case import Case, reported
from tools.fuzz.material import Material

_PIECES = (
    '"',
    '""',
    "\\",
    "'",
    ",",
    ";",
    "\t",
    "\n",
    "\r\n",
    " ",
    "a fox",
    "STOP",
    "0",
    "1.5",
    "é",
    "雨",
    "=",
)
_CELLS = (
    "0001",
    "12e4567",
    "+336",
    "1.10",
    "1e5",
    "True",
    "NA",
    "null",
    "-0",
    "2024-01-05",
    "9" * 20,
    "0x1f",
)
WRONG = 9  # the exit code of a table that is read as something else

Row = dict[str, str]
_Write = Callable[[Random, Path, list[Row]], Path]


def dialects(rng: Random, folder: Path, material: Material) -> Case:
    """Rows of text in one of many forms. A form that cannot hold a text gets another."""
    form = rng.choice([*_FORMS])
    rows = [{"prompt": _text(rng, form), "note": _note(rng, form)} for _ in range(rng.choice((1, 2, 5, 40)))]
    place = _FORMS[form](rng, folder, rows)

    def read() -> None:
        batches = [batch for _, batch in open_table(str(place), arguments={"prompt": "str"}).batches()]
        if any(odd_cells(batch) for batch in batches):
            raise TableError("a row is refused", "correct it")
        found = sorted(
            (str(row["prompt"]), _spelled(row["note"])) for batch in batches for row in batch.to_pylist()
        )
        if found != sorted((row["prompt"], row["note"]) for row in rows):
            print(f"wrote {rows}, read {found}", flush=True)
            raise SystemExit(WRONG)

    return Case(told=f"{form}: {rows}"[:300], run=reported(read))


def _text(rng: Random, form: str) -> str:
    text = "".join(rng.choice(_PIECES) for _ in range(rng.choice((1, 3, 6))))
    if form in ("unquoted TSV", "unquoted CSV"):  # which have no other way
        for piece in ("\t", "\r\n", "\n", *("," * (form == "unquoted CSV"))):
            text = text.replace(piece, " ")
        text = text.strip()
        if text[:1] == text[-1:] == '"':  # an enclosed cell, for all who read it
            text = f"a{text}"
    return text or "x"


def _note(rng: Random, form: str) -> str:
    return rng.choice(_CELLS) if rng.random() < 0.5 else _text(rng, form).strip() or "x"


def _spelled(cell: object) -> str:
    """Return a cell as text: a number that is read must be spelled as it was."""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:
        return str(int(cell))
    return str(cell)


def _quoted(cell: str, separator: str) -> str:
    needs = any(mark in cell for mark in ('"', separator, "\n", "\r"))
    return '"' + cell.replace('"', '""') + '"' if needs else cell


def _csv(separator: str, *, begin: str = "", end: str = "\n", name: str = "t.csv") -> _Write:
    def write(rng: Random, folder: Path, rows: list[Row]) -> Path:
        lines = [["prompt", "note"], *([*row.values()] for row in rows)]
        text = begin + "".join(
            separator.join(_quoted(cell, separator) for cell in line) + end for line in lines
        )
        (folder / name).write_bytes(text.encode())
        return folder / name

    return write


def _unquoted(separator: str, name: str) -> _Write:
    def write(rng: Random, folder: Path, rows: list[Row]) -> Path:
        lines = [["prompt", "note"], *([*row.values()] for row in rows)]
        (folder / name).write_bytes("".join(separator.join(line) + "\n" for line in lines).encode())
        return folder / name

    return write


def _spark(rng: Random, folder: Path, rows: list[Row]) -> Path:
    cells = (['"' + cell.replace('"', '\\"') + '"' for cell in row.values()] for row in rows)
    lines = ["prompt,note", *(",".join(row) for row in cells)]
    (folder / "t.csv").write_bytes("\n".join(lines).encode())
    return folder / "t.csv"


def _hive(rng: Random, folder: Path, rows: list[Row]) -> Path:
    for number, row in enumerate(rows):
        below = folder / "table" / f"note={quote(row['note'], safe='')}"
        below.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"prompt": [row["prompt"]]}), below / f"part-{number:03}.parquet")
    return folder / "table"


def _json(rng: Random, folder: Path, rows: list[Row]) -> Path:
    (folder / "t.json").write_text(
        json.dumps(rows, indent=rng.choice((None, 2)), ensure_ascii=rng.random() < 0.5)
    )
    return folder / "t.json"


_FORMS: dict[str, _Write] = {
    "CSV": _csv(","),
    "CSV with CRLF": _csv(",", end="\r\n"),
    "semicolons": _csv(";", begin="\ufeff", end="\r\n"),
    "sep=": _csv(";", begin="sep=;\r\n", end="\r\n"),
    "quoted TSV": _csv("\t", name="t.tsv"),
    "unquoted TSV": _unquoted("\t", "t.tsv"),
    "unquoted CSV": _unquoted(",", "t.csv"),
    "Spark": _spark,
    "Hive": _hive,
    "JSON": _json,
}
