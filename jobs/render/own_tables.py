"""Where an output keeps rows that Python gave, which its drafts have too."""

from __future__ import annotations

import re

from framefleet.pipeline.outputs.layout import DRAFTS, TABLES

_GIVEN = re.compile(rf"/{TABLES}/[0-9a-f]{{32}}\.parquet")


def is_table_of_drafts(table: str, output: str) -> bool:
    """Tell whether an output is one of drafts, and a table one of those that the output above it keeps."""
    above = output.rstrip("/").removesuffix(f"/{DRAFTS}")
    is_of_drafts = above != output.rstrip("/")
    return is_of_drafts and table.startswith(above) and bool(_GIVEN.fullmatch(table.removeprefix(above)))
