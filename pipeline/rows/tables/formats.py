"""From a file's name to what kind of table it is; from bytes that are not UTF-8 to what they likely are."""

from __future__ import annotations

import codecs
import re
from pathlib import PurePosixPath
from typing import Literal

from framefleet.pipeline.model.specs.refusal import Refused
from framefleet.pipeline.text import quoted

TableFormat = Literal["parquet", "csv", "tsv", "jsonl"]
FORMATS: dict[str, TableFormat] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
COMPRESSED = (".gz", ".bz2", ".xz")
ENDINGS = f"tables end in {', '.join(FORMATS)}, all but Parquet also with {', '.join(COMPRESSED)} behind"
TO_UTF_8 = "save the table as UTF-8; spreadsheets call it `CSV UTF-8`"
# Those of 32 bits first: they begin as those of 16 do.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
# What programs have saved texts as, the most usual first. Of the hundred that Python knows some fit anything.
_USUAL = ["cp1252", "gb18030", "cp932", "big5", "cp949", "euc_jp", "cp1251", "koi8_r"]
_USUAL += ["cp1250", "cp1253", "cp1254", "cp1255", "cp1256"]
_MAX_SAMPLE = 1 << 16  # bytes to judge by
_SHOWN = 100  # bytes of a text in a message


def file_format(path: str) -> TableFormat | None:
    """Return what the name says that the file is; None when it is not a table."""
    name, compression = packed(path)
    found = FORMATS.get(name.suffix.lower())
    return None if compression and found == "parquet" else found


def packed(path: str) -> tuple[PurePosixPath, str | None]:
    """Return the name of a file, and how it is compressed, which its last suffix says."""
    name = PurePosixPath(re.split("[?#]", path)[0] if "://" in path else path)
    suffix = name.suffix.lower()
    return (PurePosixPath(name.stem), suffix) if suffix in COMPRESSED else (name, None)


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
    found = from_bytes(lines[:_MAX_SAMPLE], cp_isolation=_USUAL)
    best = found.best()
    if best is None:
        return None
    equals = [one for one in found if (one.chaos, one.coherence) == (best.chaos, best.coherence)]
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
