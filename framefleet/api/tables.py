"""Tables from other tools' folders: the door `Plugin.tables`."""

from typing import TYPE_CHECKING

from framefleet.lazy_names import lazy_names

if TYPE_CHECKING:
    from framefleet.pipeline.rows.tables.table import read_parquet as read_parquet
    from framefleet.pipeline.rows.tables.table_source import (
        TableSource as TableSource,
        table_source as table_source,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
