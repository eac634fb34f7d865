"""Makes the previews that an output lacks: those of clips that were rendered without."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from framefleet.pipeline.errors import FramefleetError, JobError
from framefleet.pipeline.outputs.clip_frames import FRAMES_OF, recorded_frames
from framefleet.pipeline.outputs.layout import PREVIEWS, RECORDS
from framefleet.pipeline.outputs.media.clip_names import preview_path, recorded_path
from framefleet.pipeline.outputs.media.media_settings import SOUNDS
from framefleet.pipeline.outputs.media.preview import preview_of
from framefleet.pipeline.outputs.parts.record_tables import record_tables
from framefleet.pipeline.outputs.stores.store import Store

_AT_ONCE = 64  # clips that may wait for a thread

log = logging.getLogger(__name__)


def make_stills(store: Store) -> int:
    """Store a preview of every clip that has none; return how many. A clip that is damaged gets none."""
    there = set(store.list(PREVIEWS))
    missing = ((clip, record) for clip, record in _clips(store) if preview_path(clip) not in there)
    num_made = 0
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        while some := list(islice(missing, _AT_ONCE)):
            num_made += sum(threads.map(lambda pair: _make(store, *pair), some))
    return num_made


def _clips(store: Store) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield where each clip with a picture is, and what its record says of it."""
    for table in record_tables(store, FRAMES_OF):
        for record in table.to_pylist():
            try:
                clip = recorded_path(record, RECORDS)
            except JobError:  # of a record that we did not write
                continue
            if not clip.endswith(SOUNDS):
                yield clip, record


def _make(store: Store, clip: str, record: Mapping[str, Any]) -> bool:
    try:
        content = preview_of(recorded_frames(store, record))
    except FramefleetError as error:
        log.warning("%s: no preview: %s", store.url_of(clip), error)
        return False
    store.write(preview_path(clip), content)
    return True
