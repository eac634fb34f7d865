"""Clips in; out come those that may be given out, and those that are to be rendered again by plain calls.

The one meaning of plain: a row rendered as a script does, with nothing intercepted, memoized or reapplied.

The judge: audits, rows of kinds that differed, `replay` and `verify` call this, and the script that
`replay` prints does the same. It works on the pipeline as it was loaded: on a copy of a copy that no row has
seen, with the networks' attributes and buffers of that time. What a call of framefleet's recipes changed in
networks is put back afterwards; of a user's recipe nothing is undone. Not covered: what modules of libraries
and networks of second models keep. A pipeline that depends on what earlier calls left there does not repeat
its plain calls either, and is found by that.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from typing import TypeGuard

import torch

from framefleet.pipeline.guards.redaction import public_message
from framefleet.pipeline.hooks.global_draws import GlobalDraws
from framefleet.pipeline.memory import NoWorkspace, free_memory, is_out_of_memory, whole_workspaces
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.options.step_cache import StepCache
from framefleet.pipeline.model.snapshot import Loaded
from framefleet.pipeline.outputs.clips import Clip, Outcome
from framefleet.pipeline.outputs.frames.result import Rendered, audio_sha256
from framefleet.pipeline.render.audit import verdict as verdicts
from framefleet.pipeline.render.audit.schedule import AuditSchedule, Odds
from framefleet.pipeline.render.audit.verdict import Audited, Digests, Verdict, kind_of
from framefleet.pipeline.render.fused.batcher import as_in_pipelines
from framefleet.pipeline.render.lora_layers import LoraLayers
from framefleet.pipeline.render.recipe_call import RecipeCall
from framefleet.pipeline.render.row_queue import RenderRow, with_frames
from framefleet.pipeline.render.text_encoders import Encoders
from framefleet.pipeline.request import Request

log = logging.getLogger(__name__)


class Auditor:
    """The audits of one renderer. apart: kinds whose rows are plain calls from now on, and why."""

    def __init__(
        self,
        odds: Odds | None,
        plain: Callable[[RenderRow], Rendered],
        is_affordable: Callable[[], bool] = lambda: True,
        is_users: Callable[[Request], bool] = lambda request: False,
    ) -> None:
        """odds: of rows that nobody gives an order for; None: none of these is audited.

        is_affordable: whether one more of these may be, until one differs. They are audited at once: nobody
        could take back what was given out meanwhile. is_users: whether the request names a user's recipe.
        """
        self.apart: dict[str, str] = {}
        self._unrepeatable: set[str] = set()
        self._odds, self._schedule = odds, AuditSchedule(odds)
        self._is_affordable = is_affordable
        self._orders: dict[str, bool] = {}  # by row_id
        self._num_equal: Counter[str] = Counter()  # by kind
        self._plain, self._is_users = plain, is_users
        self._audited: list[Audited] = []

    def order(self, row_id: str, order: bool | None) -> None:
        """Say of a row that will come whether it is audited; None leaves it to chance here."""
        self._orders.pop(row_id, None)
        if order is not None:
            self._orders[row_id] = order

    def check(self, outcomes: Iterable[Outcome]) -> tuple[list[Outcome], list[Clip]]:
        """Audit clips that are due; return what may be given out, and clips of kinds that are apart now."""
        ready: list[Outcome] = []
        doubtful: list[Clip] = []
        for outcome, kind, verdict in [self._compared(outcome) for outcome in outcomes]:
            if _is_candidate(outcome) and kind in self.apart:
                doubtful.append(outcome)
            else:
                ready.append(self._remarked(outcome, kind, verdict))
        return ready, doubtful

    def take(self) -> list[Audited]:
        audited, self._audited = self._audited, []
        return audited

    def _compared(self, outcome: Outcome) -> tuple[Outcome, str, Verdict | None]:
        """Audit what is due; its frames are waited for, and may turn out to be no clip."""
        kind = kind_of(outcome.request)
        order = self._orders.pop(outcome.row_id, None)
        is_known = kind in self.apart or kind in self._unrepeatable
        if self._odds is None or is_known or not _is_candidate(outcome):
            return outcome, kind, None
        is_due = order
        if is_due is None:  # chance, if one more audit is affordable; where a kind was found wrong, each is
            is_affordable = verdicts.DIFFERED in self.apart.values() or self._is_affordable()
            is_due = is_affordable and self._schedule.is_due(kind, outcome.row_id)
            if not is_affordable:
                self._schedule.pass_over(kind)
        outcome = with_frames(outcome) if is_due else outcome
        verdict = self._audit(outcome, kind) if is_due and isinstance(outcome, Clip) else None
        return outcome, kind, verdict

    def _audit(self, clip: Clip, kind: str) -> Verdict | None:
        """Return what becomes of an audit; None where there is no memory for it."""
        about = {"row_id": clip.row_id}  # a hang is seen here
        log.info("row %s is rendered again by a plain call, to compare", clip.row_id, extra=about)
        started = time.perf_counter()
        verdict = None
        try:
            mine, first = _digests(clip), self._digests(clip)
            second = first if first == mine else self._digests(clip)
            verdict = verdicts.verdict_of(mine, first, second)
        except MemoryError:
            log.warning("row %s is not audited: no memory for its plain call", clip.row_id, extra=about)
        if verdict is None:  # after the handler: until then the error holds the call's tensors
            free_memory()
            return None
        seconds = time.perf_counter() - started
        size = clip.batch_size
        audited = Audited(kind=kind, row_id=clip.row_id, verdict=verdict, seconds=seconds, batch_size=size)
        self._audited.append(audited)
        log.log(verdicts.level_of(audited), "%s", verdicts.verdict_text(audited))
        if verdict == "differs":
            self.apart[kind] = verdicts.DIFFERED
        elif verdict == "unrepeatable":
            self._unrepeatable.add(kind)
        else:
            self._num_equal[kind] += 1
        return verdict

    def _digests(self, clip: Clip) -> Digests | None:
        """Return those of a plain call; None where it fails. Raises MemoryError if that is why."""
        try:
            return _digests(self._plain(RenderRow(clip.row_id, clip.request)))
        except Exception as error:  # whatever a recipe raises that returned a clip before
            if is_out_of_memory(error):
                raise MemoryError from error
            about = {"row_id": clip.row_id}
            log.warning("the plain call of row %s fails: %s", clip.row_id, public_message(error), extra=about)
        return None

    def _remarked(self, outcome: Outcome, kind: str, verdict: Verdict | None) -> Outcome:
        if not isinstance(outcome, Clip):
            return outcome
        if kind in self.apart:
            remark = verdicts.apart(self.apart[kind])
        elif not outcome.was_batched:
            remark = verdicts.PLAINLY
        elif kind in self._unrepeatable:
            remark = verdicts.UNREPEATABLE
        elif verdict == "equal":
            remark = verdicts.EQUAL_HERE if self._is_users(outcome.request) else verdicts.EQUAL
        elif self._odds:
            remark = verdicts.not_compared(self._num_equal[kind])
        else:
            return outcome
        return replace(outcome, environment={**outcome.environment, verdicts.AUDIT: remark})


def _is_candidate(outcome: Outcome) -> TypeGuard[Clip]:
    """Tell whether a row may differ from its plain call, as something was put around its calls."""
    return isinstance(outcome, Clip) and outcome.was_batched


def _digests(rendered: Clip | Rendered) -> Digests:
    pixels, audio, extras = rendered.pixels, rendered.audio, rendered.extras
    return (
        pixels.sha256 if pixels else None,
        None if audio is None else audio_sha256(audio),
        extras.json(),
        extras.file(),
    )


class PlainCalls:
    def __init__(
        self, model: Model, call: RecipeCall, loras: LoraLayers, encoders: Encoders, loaded: Loaded
    ) -> None:
        self._model, self._call, self._loras, self._encoders = model, call, loras, encoders
        self._loaded = loaded
        cache = model.settings.options.cache
        self._cache = StepCache(cache, model.denoisers()) if cache else None
        self._told: set[str] = set()

    def __call__(self, row: RenderRow) -> Rendered:
        """Render a row from its beginning; again if torch took other kernels for want of memory."""
        try:
            with whole_workspaces():
                return self.once(row)
        except NoWorkspace:
            about = {"row_id": row.row_id}
            log.info("row %s is rendered again: memory ran out for a workspace", row.row_id, extra=about)
        free_memory()
        return self.once(row)

    def once(self, row: RenderRow) -> Rendered:
        """Render a row from its beginning. Rows that are under way find all as it was."""
        is_own = self._call.is_own(row)
        self._loras.release()  # before networks are as they were loaded: rows under way keep theirs
        with ExitStack() as stack:
            stack.enter_context(as_in_pipelines())
            stack.enter_context(torch.set_grad_enabled(is_own))  # as in a script, around pipelines
            if self._model.placer:
                stack.enter_context(self._model.placer.alone())
            stack.enter_context(GlobalDraws().preserved())
            stack.enter_context(self._loaded.networks())
            if self._model.attention:
                self._model.attention.use()
            self._loras.hold(row.adapters)
            self._encoders.bring()
            try:
                if self._cache:
                    steps = row.request.arguments.get("num_inference_steps", 1)
                    self._cache.start(steps=steps, pipe=lambda: row.pipe)
                return self._call(row, self._loaded.pipelines)
            finally:
                if self._cache:
                    self._cache.stop()
                self._loras.release()
                self._encoders.leave()
                if not is_own and (what := self._loaded.difference()):
                    if row.kind not in self._told:
                        self._told.add(row.kind)
                        log.warning("rows of %s leave %s changed: it is put back after each", row.kind, what)
                    self._loaded.restore()
