"""Folders of other tools as tables, named `SCHEME://PLACE`; plugins add schemes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from framefleet.pipeline.plugin import by_name

if TYPE_CHECKING:
    import pyarrow as pa

    from framefleet.pipeline.request import Request


class TableSource:
    """Makes a table from a place of one scheme. Plugins add subclasses, see `Plugin.tables`."""

    # Columns: `until` accepts rows together that differ only in these.
    together: ClassVar[tuple[str, ...]] = ()

    def folder(self, place: str) -> str:
        """Return the folder or URL for the text after `SCHEME://`: paths in cells start there."""
        return place

    @abstractmethod
    def rows(self, filesystem: Any, path: str, location: str) -> pa.Table:
        """Return the rows. filesystem, path: the folder's, from fsspec. location: for messages.

        Raises TableError.
        """

    def remark(self, cells: Mapping[str, Any], request: Request) -> str | None:
        """Return what is unusual about a row that can be rendered, for `plan` and `render`."""
        return None


def source_mark(location: str) -> str:
    """Return the `SCHEME://` of a location if a plugin has it; else ""."""
    scheme, mark, _ = location.partition("://")
    return scheme + mark if mark and scheme in by_name("tables") else ""


def table_source(location: str) -> tuple[TableSource | None, str]:
    """Return the source that makes the table, and its folder; (None, location) for a plain table."""
    if not (mark := source_mark(location)):
        return None, location
    source: TableSource = by_name("tables")[mark.removesuffix("://")]()()
    return source, source.folder(location.removeprefix(mark))
