"""From clips to those that look like an earlier one: by perceptual hashes of three frames of each.

pHash of imagehash: 64 bits of low frequencies, which survive compression, noise and scaling.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from framefleet.jobs.show.watch import ClipsPace, Watch
from framefleet.pipeline.errors import JobError, StoreError
from framefleet.pipeline.outputs.damage import Damage
from framefleet.pipeline.outputs.media.media import decode
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.plugins.export.selection import CLIPS_AT_ONCE, Selection, read_clips

Hashes: TypeAlias = npt.NDArray[np.uint64]  # (3,): of the first, middle and last frame


@dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicate:
    """A row that looks like an earlier one, which is kept. distance: bits in which the hashes differ."""

    row_id: str
    kept: str
    distance: int


def check_dedup() -> None:
    """Raise JobError where the library is not installed."""
    if find_spec("imagehash") is None:
        raise JobError("near_duplicates needs imagehash", "pip install 'framefleet[dedup]'")


def find_near_duplicates(
    store: Store, selection: Selection, distance: int, watch: Watch
) -> tuple[list[NearDuplicate], int]:
    """Return the rows that look like an earlier one: all their hashes differ in at most `distance` bits.

    And how many clips could not be compared: sound alone, damaged, or not decodable. Compares each clip with
    all that are kept: time grows with the square of their number.
    """
    total = sum(len(piece.rows) for piece in selection.pieces())
    pace = ClipsPace("compared", total=total, watch=watch)
    hashes_of_unique, unique_ids = np.empty((total, 3), np.uint64), list[str]()
    duplicates: list[NearDuplicate] = []
    num_without_frames = 0
    for row_id, hashes, num_bytes in _hashed(store, selection):
        pace.add(1, num_bytes)
        if hashes is None:
            num_without_frames += 1
            continue
        if unique_ids:
            distances = np.bitwise_count(hashes_of_unique[: len(unique_ids)] ^ hashes).max(axis=1)
            nearest = int(distances.argmin())
            if distances[nearest] <= distance:
                near = int(distances[nearest])
                duplicates.append(NearDuplicate(row_id=row_id, kept=unique_ids[nearest], distance=near))
                continue
        hashes_of_unique[len(unique_ids)] = hashes
        unique_ids.append(row_id)
    return duplicates, num_without_frames


def _hashed(store: Store, selection: Selection) -> Iterator[tuple[str, Hashes | None, int]]:
    """Yield row_id, hashes and bytes of each clip. As many are decoded at once as there are cores."""
    with ThreadPoolExecutor(CLIPS_AT_ONCE) as readers, ThreadPoolExecutor(os.cpu_count() or 1) as decoders:
        for piece, clips in read_clips(store, selection.pieces(), readers):
            row_ids = piece.rows["row_id"].to_pylist()
            for row_id, clip, hashes in zip(row_ids, clips, decoders.map(_hashes, clips), strict=True):
                yield row_id, hashes, len(clip) if isinstance(clip, bytes) else 0


def _hashes(clip: bytes | Damage) -> Hashes | None:
    import imagehash  # SciPy and PyWavelets take a second

    if isinstance(clip, Damage):
        return None
    try:
        frames = decode(clip)
    except StoreError:  # sound alone, or bytes that were committed like this
        return None
    chosen = [frames[number] for number in (0, len(frames) // 2, -1)]
    bits = [np.packbits(imagehash.phash(Image.fromarray(frame)).hash) for frame in chosen]
    return np.stack(bits).view(np.uint64).reshape(3)
