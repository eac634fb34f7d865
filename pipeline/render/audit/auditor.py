"""Clips in; out come those that may be given out, as audits found nothing, and those to be rendered again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeGuard

from framefleet.pipeline.guards.public import public_text
from framefleet.pipeline.memory import free_memory, is_out_of_memory
from framefleet.pipeline.outputs.clips import Clip, Outcome
from framefleet.pipeline.outputs.frames.audio import audio_sha256
from framefleet.pipeline.outputs.frames.rendered import Rendered
from framefleet.pipeline.render.audit.audited import Audited, Digests, kind_of, level_of, told, verdict_of
from framefleet.pipeline.render.audit.schedule import AuditSchedule
from framefleet.pipeline.render.outcome import with_frames
from framefleet.pipeline.render.row_queue import RenderRow

log = logging.getLogger(__name__)

# What a record's environment says below `audit`.
_APART = "rendered by a plain call: in company such rows differed from plain calls"
_UNREPEATABLE = "two plain calls of such a row differed"


class Auditor:
    """The audits of one renderer. apart: kinds whose rows are plain calls from now on."""

    def __init__(self, every: int, plain: Callable[[RenderRow], Rendered]) -> None:
        self.apart: set[str] = set()
        self._unrepeatable: set[str] = set()
        self._schedule = AuditSchedule(every)
        self._plain = plain
        self._audited: list[Audited] = []

    def check(self, outcomes: Iterable[Outcome]) -> tuple[list[Outcome], list[Clip]]:
        """Audit clips that are due; return what may be given out, and clips of kinds that are apart now."""
        by_kind = [(self._compared(outcome), kind_of(outcome.request)) for outcome in outcomes]
        ready: list[Outcome] = []
        doubtful: list[Clip] = []
        for outcome, kind in by_kind:
            if _had_company(outcome) and kind in self.apart:
                doubtful.append(outcome)
            else:
                ready.append(self._remarked(outcome, kind))
        return ready, doubtful

    def take(self) -> list[Audited]:
        """Return what became of audits since the last call."""
        audited, self._audited = self._audited, []
        return audited

    def _compared(self, outcome: Outcome) -> Outcome:
        """Audit what is due; its frames are waited for, and may turn out to be no clip."""
        kind = kind_of(outcome.request)
        if _had_company(outcome) and kind not in self.apart and self._schedule.is_due(kind):
            outcome = with_frames(outcome)
            if isinstance(outcome, Clip):
                self._audit(outcome, kind)
        return outcome

    def _audit(self, clip: Clip, kind: str) -> None:
        log.info("row %s is rendered again by a plain call, to compare", clip.row_id)  # a hang is seen here
        started = time.perf_counter()
        verdict = None
        try:
            kept, first = _digests(clip), self._digests(clip)
            second = first if first == kept else self._digests(clip)
            verdict = verdict_of(kept, first, second)
        except MemoryError:
            log.warning("row %s is not audited: there is no memory for its plain call", clip.row_id)
        if verdict is None:  # after the handler: until then the error holds the call's tensors
            free_memory()
            return
        seconds = time.perf_counter() - started
        audited = Audited(kind=kind, row_id=clip.row_id, verdict=verdict, seconds=seconds)
        self._audited.append(audited)
        log.log(level_of(audited), "%s", told(audited))
        if verdict == "differs":
            self.apart.add(kind)
        elif verdict == "unrepeatable":
            self._unrepeatable.add(kind)

    def _digests(self, clip: Clip) -> Digests | None:
        """Return those of a plain call; None where it fails. Raises MemoryError if that is why."""
        try:
            return _digests(self._plain(RenderRow(clip.row_id, clip.request)))
        except Exception as error:  # whatever a recipe raises that returned a clip before
            if is_out_of_memory(error):
                raise MemoryError from error
            log.warning("the plain call of row %s fails: %s", clip.row_id, public_text(str(error)))
        return None

    def _remarked(self, outcome: Outcome, kind: str) -> Outcome:
        remark = self._remark(kind)
        if not remark or not isinstance(outcome, Clip):
            return outcome
        return replace(outcome, environment={**outcome.environment, **remark})

    def _remark(self, kind: str) -> Mapping[str, str]:
        if kind in self.apart:
            return {"audit": _APART}
        return {"audit": _UNREPEATABLE} if kind in self._unrepeatable else {}


def _had_company(outcome: Outcome) -> TypeGuard[Clip]:
    return isinstance(outcome, Clip) and outcome.had_company


def _digests(rendered: Clip | Rendered) -> Digests:
    pixels, audio, extras = rendered.pixels, rendered.audio, rendered.extras
    return (
        pixels.sha256 if pixels else None,
        None if audio is None else audio_sha256(audio),
        extras.json(),
        extras.file(),
    )
