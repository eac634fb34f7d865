"""A part without some of its rows, in place of the one that was there; a kill in between loses nothing."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from framefleet.pipeline.outputs.parts.part_file import REPLACES, metadata_of, read_part, to_parquet
from framefleet.pipeline.outputs.parts.part_names import part_path
from framefleet.pipeline.outputs.parts.seals import Hold
from framefleet.pipeline.outputs.stores.store import Store


def replace_part(
    store: Store, path: str, row_ids: Collection[str], *, run: str, number: int, hold: Hold
) -> None:
    """Write a part anew without these rows, and delete it; one without any other just goes.

    run, number: name the new one, which is newer, and so counts where both are there. Only for who holds the
    output.
    """
    table = read_part(store, path, None)
    left = table.filter(pc.invert(pc.is_in(table["row_id"], pa.array(row_ids, pa.string()))))
    replace_by(store, path, left, run=run, number=number, hold=hold)


def replace_by(
    store: Store, path: str, left: pa.Table, *, run: str, number: int, hold: Hold, is_written: bool = False
) -> None:
    """Do what `replace_part` does; left: the rows that stay.

    is_written: the new part is there already, of a driver that was killed before it deleted the old one.
    """
    hold.check()
    if len(left) and not is_written:
        content = to_parquet(left, {**metadata_of(store, path), REPLACES: path})
        store.create(part_path(str(PurePosixPath(path).parent), run, number, content), content)
        hold.check()
    store.delete(path)
