"""Tables of clips that were chosen in a gallery: a row of arguments for each, and which clip it was."""

from __future__ import annotations

from collections.abc import Collection

CLIP = "path"  # of the clip, relative to its output
_COLUMNS = {"row_id", "stars", CLIP}


def is_picks(columns: Collection[str]) -> bool:
    """Tell whether a table is a picks.jsonl. What it says of the clips' records is left out by a render."""
    return set(columns) >= _COLUMNS
