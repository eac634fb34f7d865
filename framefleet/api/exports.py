"""A format of `framefleet export`: what writes a shard of rows and their clips."""

from typing import TYPE_CHECKING

from framefleet.lazy_names import lazy_names

if TYPE_CHECKING:
    from framefleet.plugins.export.formats import plain_cell as plain_cell
    from framefleet.plugins.export.selection import Selection as Selection
    from framefleet.plugins.export.shard_writer import (
        ShardWriter as ShardWriter,
        Target as Target,
        file_names as file_names,
        own_columns as own_columns,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
