"""Folders of other tools as tables, named `SCHEME://PLACE`: a door for plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from framefleet.pipeline.plugin import by_name

if TYPE_CHECKING:
    import pyarrow as pa


class TableSource:
    """What makes a table of a place of one scheme. A plugin's subclass, of `Plugin.tables`."""

    # Columns: `until` accepts rows together that differ in these alone.
    together: ClassVar[tuple[str, ...]] = ()

    def folder(self, place: str) -> str:
        """Return the folder or URL that is meant by what follows `SCHEME://`: paths in cells start there."""
        return place

    def rows(self, filesystem: Any, path: str, location: str) -> pa.Table:
        """Return the rows. filesystem, path: of the folder, by fsspec. location: for messages.

        Raises TableError.
        """
        raise NotImplementedError


def source_mark(location: str) -> str:
    """Return the scheme that a location begins with, with its slashes, if a plugin makes tables of it."""
    scheme, mark, _ = location.partition("://")
    return scheme + mark if mark and scheme in by_name("tables") else ""


def table_source(location: str) -> tuple[TableSource | None, str]:
    """Return what makes the table, and its folder; (None, the location) where it is a table itself."""
    if not (mark := source_mark(location)):
        return None, location
    source: TableSource = by_name("tables")[mark.removesuffix("://")]()()
    return source, source.folder(location.removeprefix(mark))
