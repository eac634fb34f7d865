"""From clips of an output, read one after the other, to how far that is: told to whoever watches."""

from __future__ import annotations

import time

from framefleet.jobs.show.standing import ClipsProgress
from framefleet.jobs.show.watch import Watch


class ClipsPace:
    """Counts what is done. doing: as of `ClipsProgress`. before: of `total`, in earlier runs."""

    def __init__(self, doing: str, *, total: int, before: int = 0, watch: Watch) -> None:
        self._doing, self._total, self._before, self._watch = doing, total, before, watch
        self._done, self._num_bytes, self._begun = before, 0, time.monotonic()
        self.add(0)

    def add(self, num_clips: int, num_bytes: int = 0) -> None:
        """So many more are done. num_bytes: of theirs, where these are told."""
        self._done, self._num_bytes = self._done + num_clips, self._num_bytes + num_bytes
        elapsed_s = time.monotonic() - self._begun
        rate = (self._done - self._before) / elapsed_s if elapsed_s else 0.0
        self._watch.show(
            ClipsProgress(
                doing=self._doing,
                done=self._done,
                total=self._total,
                clips_per_s=rate or None,
                bytes_per_s=self._num_bytes / elapsed_s if rate and self._num_bytes else None,
                eta_s=(self._total - self._done) / rate if rate else None,
            )
        )
