"""Waiting rows in; those that one call of their pipeline renders together, out. In fast mode.

Rows that are alike in all but prompts and seed go as lists of these, so that schedulers, guidance and
whatever else a pipeline does between two calls of networks is done once for all. Each call of a network is
still each row's own (`fused/joint_calls.py`): batched, remembered, timed and kept in checkpoints as ever.

Some pipelines take no such lists, pad prompts to the longest, or mix rows. So two rows are rendered both
ways first, with few steps, and all that their networks were given and returned is compared.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from framefleet.pipeline.errors import message_of
from framefleet.pipeline.model.lora import without_loras
from framefleet.pipeline.render.fused.batcher import RowTask
from framefleet.pipeline.render.fused.calls import Call
from framefleet.pipeline.render.fused.exact import are_close
from framefleet.pipeline.render.fused.joint_calls import JointCall, Lengths, lengths_in
from framefleet.pipeline.render.prompt_readers import PromptReaders
from framefleet.pipeline.render.row_queue import RenderRow
from framefleet.pipeline.rows.prompt_lengths import PROMPT, texts_of

log = logging.getLogger(__name__)
# Least number of alike rows for a trial, which takes as long as four short rows.
ENOUGH = 4
_STEPS = 2  # in a trial: what the second is given, the first has made
_BETWEEN = 32  # rows from trial to trial: tables may have some rows of each of many looks

# Renders rows at once, before others go on. Adds the task of each to the list, when it begins.
Trial = Callable[[Sequence[RenderRow], list[RowTask]], None]


class JointRows:
    """What one renderer knows of rows that one call may render together."""

    def __init__(self, prompts: PromptReaders, trial: Trial) -> None:
        self._prompts, self._trial = prompts, trial
        self.num_rows = 0  # that have started
        # By look, and whether prompts differ in length; None: it cannot be done.
        self._lengths: dict[tuple[Hashable, bool], Lengths | None] = {}

    def group(self, row: RenderRow, waiting: Iterable[RenderRow], room: int) -> list[RenderRow]:
        """Return `row`, and those that one call renders with it. room: for how many rows."""
        look = _look(row)
        if look is None or all(self._lengths.get(key, {}) is None for key in _keys(look)):
            return [row]
        others = (one for one in waiting if one is not row and _look(one) == look)
        rows = [row, *islice(others, max(room - 1, 0))]
        if len(rows) < 2:
            return [row]
        own = self._length(row)
        alike = [one for one in rows if self._length(one) == own]
        unlike = [one for one in rows if one not in alike]
        key = (look, bool(unlike))
        is_due = self.num_rows >= _BETWEEN * len(self._lengths)
        if is_due and key not in self._lengths and len(rows) >= ENOUGH:
            self._lengths[key] = self._tried([row, (unlike or rows[1:])[0]], are_unlike=bool(unlike))
        if lengths := self._lengths.get(key):
            joint = JointCall([one.request for one in rows], lambda: lengths, are_unlike=bool(unlike))
            for one in rows:
                one.joint = joint
            return rows
        return self.group(row, alike, room) if unlike else [row]

    def refuse(self, row: RenderRow, why: str) -> None:
        """Render such rows by calls of their own from now on; those of one length too, if these were."""
        keys = _keys(_look(row))[: 1 if row.joint and row.joint.are_unlike else 2]
        if any(self._lengths.get(key) for key in keys):
            log.info("rows of %s are not rendered together by one call: %s", row.kind, why)
        self._lengths |= dict.fromkeys(keys)

    def _length(self, row: RenderRow) -> Any:
        """Return what is equal for rows whose prompts are equally long."""
        reading, texts = self._prompts.reading(row.request), dict(texts_of(row.request.arguments))
        prompt = texts.pop(PROMPT, None)
        return reading.num_tokens if reading else prompt, texts

    def _tried(self, rows: Sequence[RenderRow], *, are_unlike: bool) -> Lengths | None:
        """Return how calls of such rows look, if each gets by one call what it gets alone; else None."""
        steps = {"num_inference_steps": _STEPS} if "num_inference_steps" in rows[0].request.arguments else {}
        requests = [replace(row.request, arguments={**row.request.arguments, **steps}) for row in rows]
        alone, together = ([RenderRow("trial", request) for request in requests] for _ in range(2))
        tasks: list[RowTask] = []

        def lengths() -> Lengths:
            return lengths_in(_calls(tasks[: len(rows)]), by_shape=are_unlike)

        joint = JointCall(requests, lengths, are_unlike=are_unlike)
        for row in together:
            row.joint = joint
        self._trial([*alone, *together], tasks)
        try:
            why = next(filter(None, map(_difference, tasks, tasks[len(rows) :])), None)
        except Exception as error:  # of frames that cannot be kept
            why = message_of(error)
        if why is None:
            return joint.lengths()
        log.info("rows of %s are not rendered together by one call: %s", rows[0].kind, why)
        return None


def _look(row: RenderRow) -> Hashable | None:
    """Return what is equal for rows that may be rendered by one call; None for a row that is by itself."""
    arguments = without_loras(row.request.arguments)
    texts = dict(texts_of(arguments))
    others = {name: arguments[name] for name in sorted(arguments.keys() - texts.keys())}
    are_numbers = all(value is None or isinstance(value, int | float) for value in others.values())
    if row.is_alone or row.checkpoint or row.request.recipe != "generate" or not (texts and are_numbers):
        return None
    return row.request.scheduler, row.adapters.asked, repr(([*texts], others))


def _keys(look: Hashable) -> list[tuple[Hashable, bool]]:
    return [(look, True), (look, False)]


def _calls(tasks: Iterable[RowTask]) -> Iterator[Call]:
    for task in tasks:
        yield from (call for call, _ in task.history or ())
        if task.call:
            yield task.call


def _difference(alone: RowTask, together: RowTask) -> str | None:
    """Return what a row gets by a call for several, and not alone; None if that is rounding."""
    for error in filter(None, (alone.error, together.error)):
        return message_of(error.__cause__ or error)
    theirs, own = together.history or [], alone.history or []
    looks = [[(call.module, call.structure) for call, _ in calls] for calls in (theirs, own)]
    if looks[0] != looks[1]:
        return "it calls its networks in another way"
    for (call, result), (own_call, own_result) in zip(theirs, own, strict=True):
        if not are_close([call.leaves, result.value], [own_call.leaves, own_result.value]):
            return f"{call.module} is given or returns something else"
    extras = alone.value.extras
    if alone.value.audio or extras.arrays or extras.values != together.value.extras.values:
        return "it returns more than frames"
    frames, own_frames = (np.asarray(task.value.frames, np.float32) for task in (together, alone))
    is_close = np.abs(frames - own_frames).mean() <= own_frames.max() / 255  # a level of 8 bits
    return None if is_close else "frames differ"
