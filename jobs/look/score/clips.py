"""From a record to the scores of its clip: read, compared with what was committed, decoded, measured."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from framefleet.pipeline.errors import JobError, StoreError
from framefleet.pipeline.outputs.media.media import decode
from framefleet.pipeline.outputs.recorded_files import HOW, MAX_CLIP_BYTES, recorded_clip, sound_content
from framefleet.pipeline.outputs.stores.store import Store
from framefleet.pipeline.scores.score import ClipScore
from framefleet.pipeline.scores.scorer import Scored, score_clip


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredClip:
    """media_sha256: of the clip. damage: what is wrong with it; it then has no scores."""

    row_id: str
    media_sha256: str
    scored: Scored
    damage: str | None = None


def scored_clips(
    store: Store, scores: Sequence[ClipScore], records: Iterable[Mapping[str, Any]], *, num_threads: int
) -> Iterator[ScoredClip]:
    """Yield the scores of clips in the order of their records, measured side by side.

    At most twice as many clips are under way as there are threads, each of up to 3 GB when it is decoded.
    Raises StoreError for an output that does not answer.
    """
    waiting: deque[Future[ScoredClip]] = deque()
    left = iter(records)
    with ThreadPoolExecutor(num_threads) as threads:
        try:
            while True:
                for record in islice(left, 2 * num_threads - len(waiting)):
                    waiting.append(threads.submit(_scored, store, scores, record))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _scored(store: Store, scores: Sequence[ClipScore], record: Mapping[str, Any]) -> ScoredClip:
    if record["frames_sha256"] is None:  # sound alone
        return _clip(record, score_clip(scores, None, record))
    try:
        file = recorded_clip(record)
        if record["bytes"] > MAX_CLIP_BYTES:
            return _damaged(record, f"{file.path}: it has more than {MAX_CLIP_BYTES:,} bytes")
    except JobError as error:  # the record may be anybody's
        return _damaged(record, error.problem)
    content = sound_content(store, file)
    if not isinstance(content, bytes):
        return _damaged(record, f"{file.path}: {HOW[content]}")
    try:
        frames = decode(content)
    except StoreError as error:
        return _damaged(record, f"{file.path}: {error.problem}")
    return _clip(record, score_clip(scores, frames, record))


def _damaged(record: Mapping[str, Any], why: str) -> ScoredClip:
    return _clip(record, Scored(), damage=why)


def _clip(record: Mapping[str, Any], scored: Scored, damage: str | None = None) -> ScoredClip:
    row_id, media_sha256 = record["row_id"], record["media_sha256"]
    return ScoredClip(row_id=row_id, media_sha256=media_sha256, scored=scored, damage=damage)
