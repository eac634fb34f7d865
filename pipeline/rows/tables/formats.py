"""From a file's name to its table format, and from its first bytes to what it really is."""

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
ENDINGS = f"tables end in {', '.join(FORMATS)}; all but Parquet may add {', '.join(COMPRESSED)}"
TO_UTF_8 = "save the table as UTF-8; spreadsheets call it `CSV UTF-8`"
# UTF-32 first, because its marks begin like those of UTF-16.
_MARKS = dict.fromkeys((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "UTF-32")
_MARKS |= dict.fromkeys((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "UTF-16")
# Encodings in which programs save text, the most usual first. Some others that Python knows fit any text.
_USUAL = ["cp1252", "gb18030", "cp932", "big5", "cp949", "euc_jp", "cp1251", "koi8_r"]
_USUAL += ["cp1250", "cp1253", "cp1254", "cp1255", "cp1256"]
_MAX_SAMPLE = 1 << 16  # bytes to judge by
_SHOWN = 100  # bytes of a text in a message
PARQUET = b"PAR1"
_WITH_A_LIBRARY = "convert it to Parquet, e.g. with pandas, Polars or DuckDB"
# (first bytes, what it is, fix) of files that are often taken for tables. `{name}` is the file's.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs.github.com/", "a Git LFS pointer, not the table itself", "run `git lfs pull`"),
    (b"\x1f\x8b", "compressed with gzip", "rename it to {name}.gz"),
    (b"BZh", "compressed with bzip2", "rename it to {name}.bz2"),
    (b"\xfd7zXZ\0", "compressed with xz", "rename it to {name}.xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it, e.g. with `zstd -d`"),
    (PARQUET, "a Parquet file", "rename it to end in .parquet"),
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
    """Return the table format by the file's name; None if it is not a table."""
    name, compression = packed(path)
    kind = FORMATS.get(name.suffix.lower())
    return None if compression and kind == "parquet" else kind


def packed(path: str) -> tuple[PurePosixPath, str | None]:
    """Return the name of a file without the suffix of its compression, and that suffix."""
    name = PurePosixPath(re.split("[?#]", path)[0] if "://" in path else path)
    suffix = name.suffix.lower()
    return (PurePosixPath(name.stem), suffix) if suffix in COMPRESSED else (name, None)


def mistaken_file(beginning: bytes, name: str, *, own: bytes = b"") -> TableError | None:
    """Return the error for a file that is not what its name says. own: the first bytes of its format."""
    if _PAGE.match(beginning.removeprefix(codecs.BOM_UTF8)):
        return TableError(
            f"{name} is a web page, not a table",
            "download the file itself: the page may ask for a login, or have a link `raw` or `download`",
        )
    short, first_line = packed(name)[0].name, beginning[:256].split(b"\n")[0].strip()
    for start, kind, fix in _BEGINNINGS:
        # Text that only begins like this, e.g. with a column called ORC_CLASS or PAR1.
        is_header = start.isalnum() and first_line.isascii() and b"\0" not in beginning
        if beginning.startswith(start) and start != own and not is_header:
            return TableError(f"{name} is {kind}", fix.replace("{name}", short))
    return None


def marked_encoding(beginning: bytes) -> str | None:
    """Return the encoding by a byte order mark, or by the zeros of UTF-16; None without either."""
    for mark, encoding in _MARKS.items():
        if beginning.startswith(mark):
            return encoding
    if b"\0" in beginning[:2]:
        return "UTF-16BE" if beginning[0] == 0 else "UTF-16LE"
    return None


def raw_bytes(text: str) -> bytes:
    """Return the bytes of text that was decoded with `surrogateescape`, or that has other surrogates."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def likely_encoding(texts: bytes) -> str | None:
    """Return the encoding in which the lines that are not ASCII make the most sense; None if none fits."""
    from charset_normalizer import from_bytes  # takes 0.1 s, and is seldom needed

    lines = b"\n".join(line for line in texts.splitlines() if not line.isascii())
    matches = from_bytes(lines[:_MAX_SAMPLE], cp_isolation=_USUAL)
    best = matches.best()
    if best is None:
        return None
    equals = [match for match in matches if (match.chaos, match.coherence) == (best.chaos, best.coherence)]
    names = {name for match in equals for name in match.could_be_from_charset}
    return next((name for name in _USUAL if name in names), None)


def refused_text(text: bytes, encoding: str | None, file: str) -> Refused:
    """Return why text that is not UTF-8 is refused. encoding: its likely one. file: the name of its file."""
    if encoding is None:
        return Refused(reason="it is not UTF-8", fix=TO_UTF_8)
    read = text[:_SHOWN].decode(encoding, "replace")
    return Refused(reason=f"it is not UTF-8; as {encoding} it is {read!r}", fix=to_utf_8(encoding, file))


def to_utf_8(encoding: str, file: str) -> str:
    """Return how to save a file as UTF-8, or, if it is not compressed, how to convert it."""
    name, compression = packed(file)
    if compression:
        return TO_UTF_8
    new = f"{name.stem}-utf-8{name.suffix}"
    names = f"{quoted(name.name)} > {quoted(new)}"
    return f"{TO_UTF_8}; or convert it: iconv -f {encoding.replace('_', '-')} -t utf-8 {names}"
