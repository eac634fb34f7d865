"""Make a file name for each clip from a template such as "{prompt:.40}-{seed}", valid on every system.

Names are NFC and at most 255 bytes in UTF-8, differ in more than case, and have no character that Windows,
macOS, Linux or a terminal reads as something else. Equal names are numbered, in the order of
the table.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from framefleet.api.errors import JobError, shown
from framefleet.api.exports import file_names
from framefleet.api.outputs import RECORDS, fix_of_missing, rows_of
from framefleet.plugins.export.selection import Selection

USUAL_NAME = "{prompt:.60}-{seed}"
MAX_NAME_BYTES = 255  # bytes of a file's name on Linux; UTF-16 units on Windows and macOS, which are fewer
_MAX_TEMPLATE = 1024
_SPEC = re.compile(
    r"(?:[^{}]?[<>=^])?[-+ ]?#?0?\d{0,3}[,_]?(?:\.\d{1,3})?[a-zA-Z%]?"
)  # three digits: bounded
_FORBIDDEN = re.compile(r'[<>:"/\\|?*]')
# A device of Windows, whatever its ending.
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$|clock\$) *(?:\.|$)", re.IGNORECASE
)
_ENDING = re.compile(r"(?:\.[a-z0-9]{1,8}){1,2}", re.IGNORECASE)
# Unicode categories: control characters, text directions, surrogates, private use, unassigned.
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn")


@dataclass(frozen=True, slots=True)
class _Part:
    before: str
    column: str | None  # None for the text after the last column
    form: str


def clip_names(selection: Selection, template: str | None) -> dict[str, str]:
    """Return file names for the clips, by row_id, with their endings. Raises JobError."""
    known = selection.nameable
    parts = _read(template or (USUAL_NAME if "prompt" in known else "{row_id}"), known)
    columns = dict.fromkeys(part.column for part in parts if part.column)
    added = [name for name in columns if name not in selection.added]
    clips = []
    for table in selection.rows("row_indices", *added):
        for row, file in zip(rows_of(table, RECORDS), file_names(table), strict=True):
            ending = _ENDING.fullmatch(file.removeprefix(row["row_id"]))
            clips.append(
                (
                    min(row["row_indices"], default=0),
                    row["row_id"],
                    _filled(parts, row),
                    ending[0] if ending else "",
                )
            )
    return _unique(sorted(clips))


def _read(template: str, known: Collection[str]) -> list[_Part]:
    example = f'write it as "{USUAL_NAME}", with {{{{ and }}}} for braces'
    try:
        template.encode()  # a command line may contain bytes that are not text
        parsed = [*string.Formatter().parse(template)]
    except ValueError as error:
        raise JobError(f"name: {template!r} is not a template: {error}", example) from None
    parts = [_Part(before, name, form or "") for before, name, form, _ in parsed]
    if len(template) > _MAX_TEMPLATE or all(part.column is None for part in parts):
        problem = "is too long" if len(template) > _MAX_TEMPLATE else "names no column"
        raise JobError(f"name: {shown(template)} {problem}", example)
    for part, (*_, conversion) in zip(parts, parsed, strict=True):
        if part.column is None:
            continue
        if part.column not in known:  # also `{prompt.title}` and `{prompt[0]}`
            raise JobError(f"name: there is no column {part.column!r}", fix_of_missing(part.column, known))
        if conversion or not _SPEC.fullmatch(part.form):
            problem = f"name: {part.column!r} has the format {part.form or f'!{conversion}'!r}"
            raise JobError(problem, "use formats like {prompt:.40} or {seed:06}, with numbers below 1,000")
    return parts


def _filled(parts: Sequence[_Part], row: Mapping[str, Any]) -> str:
    return "".join(
        part.before + ("" if part.column is None else _cell(part, row[part.column])) for part in parts
    )


def _cell(part: _Part, value: Any) -> str:
    if value is None:
        return ""
    plain = value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
    for one in (plain, str(plain)):  # `.40` only works for text
        try:
            return format(one, part.form)
        except (ValueError, OverflowError):
            continue
    problem = f"name: {part.column!r} is {shown(value)}, which does not fit the format {part.form!r}"
    raise JobError(problem, f"use e.g. {{{part.column}}} or {{{part.column}:.40}}")


def _unique(clips: Sequence[tuple[int, str, str, str]]) -> dict[str, str]:
    """clips: (place in the table, row_id, text, ending)."""
    names, taken, numbers = dict[str, str](), set[str](), dict[str, int]()
    for _, row_id, text, ending in clips:
        first = name = safe_name(text, ending)
        number = numbers.get(folded(first), 1)
        while folded(name) in taken:
            number += 1
            name = safe_name(text, f"-{number}{ending}")
        numbers[folded(first)] = number
        taken.add(folded(name))
        names[row_id] = name
    return names


def safe_name(text: str, ending: str) -> str:
    """Return a safe file name. ending: appended unchanged."""
    text = unicodedata.normalize("NFC", text)
    spaced = "".join(" " if char.isspace() else char for char in text)
    text = " ".join("".join(char for char in spaced if unicodedata.category(char) not in _UNSEEN).split())
    text = _FORBIDDEN.sub("_", text).strip(". ")
    if text.startswith(("-", "~")) or _DEVICE.match(text):
        text = f"_{text}"
    room = MAX_NAME_BYTES - len(ending.encode())
    text = unicodedata.normalize("NFC", text).encode()[:room].decode("utf-8", "ignore").rstrip(". ")
    return f"{text or 'clip'}{ending}"


def folded(name: str) -> str:
    """Return a key that is equal for names which a file system may treat as the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", name).casefold())
