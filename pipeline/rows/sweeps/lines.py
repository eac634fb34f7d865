"""From a text file to its lines, as a sweep goes through them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fsspec

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.guards.public import check_url, keep_secrets, public_text, public_url
from framefleet.pipeline.rows.sweeps.numbers import MAX_VALUES
from framefleet.pipeline.rows.tables.encodings import likely_encoding, marked_encoding, refused_text, to_utf_8
from framefleet.pipeline.rows.tables.formats import file_format

_SHOWN = 100  # characters of a line in a message
_MAX_BYTES = 64 << 20  # a million prompts as people write them


def lines_of(file: str, place: str, storage_options: Mapping[str, Any]) -> list[str]:
    """Return the lines of a file, a path or URL, without those that are blank. Raises JobError."""
    shown = public_url(file)
    if not _plain(file).endswith(".txt"):  # job.json may name files, and their lines go into records
        as_table = "give a table as `table:`; its rows are rendered with each combination of the sweep"
        fix = "rename it" if file_format(file) is None else as_table
        raise JobError(f"{place}.file is {shown}, which is no .txt file", fix)
    content = _read(file, f"{place}.file is {shown}", storage_options)
    if len(content) > _MAX_BYTES:
        raise JobError(f"{place}.file {shown} is longer than {_MAX_BYTES >> 20} MiB", "use a table")
    text = _decoded(content, f"{place}.file {shown}", shown)
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not found:
        raise JobError(f"{place}.file {shown} is empty", "write a value on each line")
    if len(found) > MAX_VALUES:
        raise JobError(f"{place}.file {shown} has more than {MAX_VALUES:,} lines", "use a table")
    return found


def _decoded(content: bytes, said: str, file: str) -> str:
    if encoding := marked_encoding(content):
        raise JobError(f"{said} is {encoding}", to_utf_8(encoding, file))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start)
        line = content.splitlines()[number]
    why = refused_text(line, likely_encoding(content), file)
    problem = f"line {number + 1} is {line.decode('utf-8', 'replace')[:_SHOWN]!r}, but {why.reason}"
    raise JobError(f"{said}: {problem}", why.fix)


def _plain(file: str) -> str:
    return file.partition("?")[0].lower() if "://" in file else file.lower()


def _read(file: str, said: str, storage_options: Mapping[str, Any]) -> bytes:
    check_url(file)
    keep_secrets([storage_options, file])
    try:
        options = storage_options if "://" in file else {}
        with fsspec.open(file, "rb", **options) as opened:
            content: bytes = opened.read(_MAX_BYTES + 1)
    except Exception as error:  # every store has errors of its own: botocore's and aiohttp's are no OSError
        raise JobError(f"{said}, and cannot be read: {public_text(str(error))}", "check its path") from None
    return content
