"""From the texts of a column to a type, and to values: only where the text comes back from the value.

`0001` is not a number, as 1 is written 1; nor are `12e4567`, `+33612345678`, 2.50 and a number of twenty
digits. Spaces around a number do not count.
"""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.pipeline.guards.json_text import EXACT_FLOATS

# Fifteen digits come back from any number, written like this.
_SHORT_NUMBER = r"^(?:0|-?[1-9][0-9]*|-?(?:0|[1-9][0-9]*)\.(?:0|[0-9]*[1-9]))$"
_SHORT = 16
_TRUTHS = (("true", "false"), ("True", "False"), ("TRUE", "FALSE"))  # of JSON, Python and spreadsheets
_DAY = "1970-01-01 "
_TYPES = (
    pa.int64(),
    pa.bool_(),
    pa.date32(),
    pa.time32("s"),
    *map(pa.timestamp, ("s", "ms", "us", "ns")),
    pa.float64(),
)


def type_of(texts: pa.Array) -> pa.DataType:
    """Return the first type from whose values all texts come back; text where there is none, or no text."""
    filled = pc.ascii_trim_whitespace(texts.drop_null())
    kinds = (kind for kind in _TYPES if _come_back(filled, kind)) if len(filled) else iter(())
    return next(kinds, pa.string())


def typed_cells(texts: pa.Array, kind: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Return the values, and the offsets of texts that do not come back from any, which are null there."""
    if kind == pa.string():
        return texts, []
    texts = pc.ascii_trim_whitespace(texts)
    values = _parsed(texts, kind)
    if values is not None:
        back = _written_as(values, texts)
        if pc.all(back).as_py() is not False:
            return values, []
    if len(texts) == 1:
        return pa.nulls(1, kind), [0]
    half = len(texts) // 2
    first, odd = typed_cells(texts[:half], kind)
    second, more = typed_cells(texts[half:], kind)
    return pa.concat_arrays([first, second]), [*odd, *(half + offset for offset in more)]


def _come_back(texts: pa.Array, kind: pa.DataType) -> bool:
    if kind == pa.bool_():
        return any(pc.all(pc.is_in(texts, pa.array(words))).as_py() for words in _TRUTHS)
    if len(texts) > 1 and _parsed(texts[:1], kind) is None:  # of most columns, the first says it
        return False
    return not typed_cells(texts, kind)[1]


def _parsed(texts: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """Return what Arrow reads, which takes too much: `0x10` and `1e400`; None where it reads one not."""
    try:
        if not pa.types.is_time(kind):
            return texts.cast(kind)
        on_a_day = pc.binary_join_element_wise(_DAY, texts, "")  # there is no cast from text to times
        return on_a_day.cast(pa.timestamp(kind.unit)).cast(kind)
    except pa.ArrowInvalid:
        return None


def _written_as(values: pa.Array, texts: pa.Array) -> pa.Array:
    """Tell of each text whether it is how its value is written."""
    if values.type == pa.bool_():
        return pc.is_in(texts, pa.array([None, *(word for words in _TRUTHS for word in words)]))
    if values.type != pa.float64():
        return pc.equal(values.cast(pa.string()), texts)
    is_short = pc.and_(
        pc.match_substring_regex(texts, _SHORT_NUMBER), pc.less_equal(pc.binary_length(texts), _SHORT)
    )
    if pc.all(is_short).as_py() is not False:
        return is_short
    pairs = zip(is_short.to_pylist(), texts.to_pylist(), strict=True)
    return pa.array([short if short is not False else _is_spelled(text) for short, text in pairs])


def _is_spelled(text: str) -> bool:
    """Tell whether a text is what Python writes of a number, or a whole number that floats hold."""
    number = float(text)
    is_whole = abs(number) <= EXACT_FLOATS and number.is_integer()
    return math.isfinite(number) and (repr(number) == text or (is_whole and text == str(int(number))))
