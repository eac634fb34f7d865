"""In: rows and the output that their clips lie in. Out: the bytes of each, read side by side and checked."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from framefleet.jobs.export.selection import CLIP_COLUMNS, Piece
from framefleet.pipeline.outputs.damage import Damage
from framefleet.pipeline.outputs.record_files import recorded_clip, sound_content
from framefleet.pipeline.outputs.stores.store import Store

CLIPS_AT_ONCE = 16  # a store answers in tens of milliseconds, and hashing gives way to other threads
_PIECES_AHEAD = 1  # while one is written the next is read


def read_clips(
    store: Store, pieces: Iterable[Piece], readers: ThreadPoolExecutor
) -> Iterator[tuple[Piece, list[bytes | Damage]]]:
    """Yield each piece with its clips; of one that is not as its record says what is wrong with it."""
    waiting: deque[tuple[Piece, list[Future[bytes | Damage]]]] = deque()
    for piece in pieces:
        rows = piece.rows.select(list(CLIP_COLUMNS)).to_pylist()
        waiting.append((piece, [readers.submit(_clip, store, row) for row in rows]))
        if len(waiting) > _PIECES_AHEAD:
            yield _done(*waiting.popleft())
    while waiting:
        yield _done(*waiting.popleft())


def _done(piece: Piece, reads: list[Future[bytes | Damage]]) -> tuple[Piece, list[bytes | Damage]]:
    return piece, [read.result() for read in reads]


def _clip(store: Store, record: dict[str, Any]) -> bytes | Damage:
    file = recorded_clip(record)
    found = sound_content(store, file)
    return found if isinstance(found, bytes) else Damage(kind=found, path=file.path, row_id=record["row_id"])
