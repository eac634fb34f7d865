"""From a file's name to the kind of table that it is; from its first bytes to what it is in truth."""

from __future__ import annotations

import codecs
import re
from pathlib import PurePosixPath
from typing import Literal

from framefleet.pipeline.errors import Refused, TableError, quoted

TableFormat = Literal["parquet", "csv", "tsv", "jsonl"]
FORMATS: dict[str, TableFormat] = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "tsv"}
FORMATS |= {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
COMPRESSED = (".gz", ".bz2", ".xz")
ENDINGS = f"tables end in {', '.join(FORMATS)}, all but Parquet also with {', '.join(COMPRESSED)} behind"
TO_UTF_8 = "save the table as UTF-8; spreadsheets call it `CSV UTF-8`"
# Those of 32 bits first: they begin as those of 16 do.
_MARKS = dict.fromkeys((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "UTF-32")
_MARKS |= dict.fromkeys((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "UTF-16")
# What programs have saved texts as, the most usual first. Of the hundred that Python knows some fit anything.
_USUAL = ["cp1252", "gb18030", "cp932", "big5", "cp949", "euc_jp", "cp1251", "koi8_r"]
_USUAL += ["cp1250", "cp1253", "cp1254", "cp1255", "cp1256"]
_MAX_SAMPLE = 1 << 16  # bytes to judge by
_SHOWN = 100  # bytes of a text in a message
PARQUET = b"PAR1"
_WITH_A_LIBRARY = "convert it to Parquet, e.g. with pandas, Polars or DuckDB"
# How files begin that are often taken for tables: what each is, and what to do. `{name}` is the file's.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs.github.com/", "a Git LFS pointer, not the table itself", "run `git lfs pull`"),
    (b"\x1f\x8b", "compressed with gzip", "rename it to {name}.gz"),
    (b"BZh", "compressed with bzip2", "rename it to {name}.bz2"),
    (b"\xfd7zXZ\0", "compressed with xz", "rename it to {name}.xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it, e.g. with `zstd -d`"),
    (PARQUET, "a Parquet file", "give it the ending .parquet"),
    (b"PARE", "an encrypted Parquet file", "write it without encryption"),
    (b"PK\x03\x04", "a spreadsheet or a zip", "save the sheet as CSV, or unpack it"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet of old Excel", "save the sheet as CSV"),
    (b"ARROW1", "an Arrow (Feather) file", _WITH_A_LIBRARY),
    (b"ORC", "an ORC file", _WITH_A_LIBRARY),
    (b"Obj\x01", "an Avro file", _WITH_A_LIBRARY),
    (b"SQLite format 3\0", "a SQLite database", _WITH_A_LIBRARY),
    (b"%PDF-", "a PDF", "save the table as CSV"),
)
_PAGE = re.compile(rb"\s*<(?:!doctype html|html|head|\?xml|!--)", re.IGNORECASE)


def file_format(path: str) -> TableFormat | None:
    """Return what the name says that the file is; None when it is not a table."""
    name, compression = packed(path)
    kind = FORMATS.get(name.suffix.lower())
    return None if compression and kind == "parquet" else kind


def packed(path: str) -> tuple[PurePosixPath, str | None]:
    """Return the name of a file, and how it is compressed, which its last suffix says."""
    name = PurePosixPath(re.split("[?#]", path)[0] if "://" in path else path)
    suffix = name.suffix.lower()
    return (PurePosixPath(name.stem), suffix) if suffix in COMPRESSED else (name, None)


def mistaken_file(beginning: bytes, name: str, *, own: bytes = b"") -> TableError | None:
    """Return what is wrong with a file that is not what it says. own: how files of its format begin."""
    if _PAGE.match(beginning.removeprefix(codecs.BOM_UTF8)):
        return TableError(
            f"{name} is a web page, not a table",
            "download the file itself: its page may ask for a login, or have a link `raw` or `download`",
        )
    short, first_line = packed(name)[0].name, beginning[:256].split(b"\n")[0].strip()
    for start, kind, fix in _BEGINNINGS:
        # text that only begins like this, as a column called ORC_CLASS or PAR1
        is_header = start.isalnum() and first_line.isascii() and b"\0" not in beginning
        if beginning.startswith(start) and start != own and not is_header:
            return TableError(f"{name} is {kind}", fix.replace("{name}", short))
    return None


def marked_encoding(beginning: bytes) -> str | None:
    """Return what a file is that says so, by a byte order mark or by the zeros of UTF-16; else None."""
    for mark, encoding in _MARKS.items():
        if beginning.startswith(mark):
            return encoding
    if b"\0" in beginning[:2]:
        return "UTF-16BE" if beginning[0] == 0 else "UTF-16LE"
    return None


def raw_bytes(text: str) -> bytes:
    """Return the bytes of a text that was decoded with `surrogateescape`, or has halves of characters."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def likely_encoding(texts: bytes) -> str | None:
    """Return the encoding in which the lines that are not ASCII make most sense; None where none does."""
    from charset_normalizer import from_bytes  # a tenth of a second, and seldom needed

    lines = b"\n".join(line for line in texts.splitlines() if not line.isascii())
    matches = from_bytes(lines[:_MAX_SAMPLE], cp_isolation=_USUAL)
    best = matches.best()
    if best is None:
        return None
    equals = [one for one in matches if (one.chaos, one.coherence) == (best.chaos, best.coherence)]
    names = {name for one in equals for name in one.could_be_from_charset}
    return next((name for name in _USUAL if name in names), None)


def refused_text(text: bytes, encoding: str | None, file: str) -> Refused:
    """Return why a text is refused that is not UTF-8. encoding: that it likely is in. file: that has it."""
    if encoding is None:
        return Refused(reason="it is not UTF-8", fix=TO_UTF_8)
    read = text[:_SHOWN].decode(encoding, "replace")
    return Refused(reason=f"it is not UTF-8; as {encoding} it is {read!r}", fix=to_utf_8(encoding, file))


def to_utf_8(encoding: str, file: str) -> str:
    """Return how to save a file as UTF-8, or to convert it, where its bytes are not packed."""
    name, compression = packed(file)
    if compression:
        return TO_UTF_8
    new = f"{name.stem}-utf-8{name.suffix}"
    names = f"{quoted(name.name)} > {quoted(new)}"
    return f"{TO_UTF_8}; or convert it: iconv -f {encoding.replace('_', '-')} -t utf-8 {names}"
