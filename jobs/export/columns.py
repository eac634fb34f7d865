"""From the columns of an output's records to those that a trainer needs."""

from __future__ import annotations

from collections.abc import Sequence

from framefleet.pipeline.outputs.parts.part_names import Part
from framefleet.pipeline.outputs.parts.record_tables import record_schema_of, record_tables
from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, told_arguments
from framefleet.pipeline.outputs.stores.store import Store

# Of framefleet's own columns and the pipeline's arguments. Others say how, where and by what a clip was made.
_LEAN = frozenset({"row_id", "prompt", "seed", "height", "width", "num_frames", "fps", "duration_s"})


def lean_columns(store: Store, parts: Sequence[Part]) -> tuple[str, ...]:
    """Return the columns about the clip itself: prompt, seed, size, scores, and labels from the user's table.

    Of framefleet's own columns and the pipeline's arguments only those of `_LEAN`, so no model's place and
    no machine's name. Reads the records once. A column without any value is left out.
    """
    names = record_schema_of(store, parts).names
    maybe = [name for name in names if name not in RECORD_FIELDS.names or name in _LEAN]
    filled: set[str] = set()
    arguments: set[str] = set()
    for table in record_tables(store, [*maybe, "arguments"], parts):
        filled |= {name for name in maybe if table[name].null_count < len(table)}
        for text in table["arguments"].unique().to_pylist():
            arguments |= told_arguments({"arguments": text}).keys()
    return tuple(name for name in maybe if name in filled and (name in _LEAN or name not in arguments))
