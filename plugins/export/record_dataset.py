"""From the records of an output to a Ray Dataset: read by the cluster's tasks, some parts each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from framefleet.pipeline.outputs.parts.record_tables import doubled_rows, shaped
from framefleet.pipeline.outputs.parts.seals import Part, live_parts
from framefleet.pipeline.outputs.query import records_where
from framefleet.pipeline.outputs.stores.store import Store


def record_dataset(store: Store, schema: pa.Schema, where: str | None) -> ray.data.Dataset:
    """Return the records that exist now, in the order in which they were committed.

    schema: the columns. where: a condition in SQL; None: all records.
    """
    dataset: ray.data.Dataset = ray.data.read_datasource(_Records(store, schema, where))
    return dataset


class _Records(Datasource):
    def __init__(self, store: Store, schema: pa.Schema, where: str | None) -> None:
        self._store, self._schema, self._where = store, schema, where
        self._parts = live_parts(store)
        self._doubled = doubled_rows(store, self._parts)

    def estimate_inmemory_data_size(self) -> None:
        """Return None: the size is unknown before parts are read."""

    def get_read_tasks(self, parallelism: int, *_: object, **__: object) -> list[ReadTask]:
        size = max(1, -(-len(self._parts) // max(1, parallelism)))
        tasks = []
        for first in range(0, len(self._parts), size):
            parts = self._parts[first : first + size]
            paths = tuple(part.path for part in parts)
            # The rows whose records in other parts count.
            elsewhere = [row_id for row_id, path in self._doubled.items() if path not in paths]
            read = partial(_read, self._store, self._schema, self._where, parts, elsewhere)
            about = BlockMetadata(num_rows=None, size_bytes=None, input_files=paths, exec_stats=None)
            tasks.append(ReadTask(read, about, self._schema))
        return tasks


def _read(
    store: Store, schema: pa.Schema, where: str | None, parts: Sequence[Part], elsewhere: Sequence[str]
) -> Iterator[pa.Table]:
    left_out = pa.array(elsewhere, pa.string())
    for table in records_where(store, ["row_id", *schema.names], where, parts):
        yield shaped(table.filter(pc.invert(pc.is_in(table["row_id"], left_out))), schema)
