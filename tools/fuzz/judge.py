"""From how a case ended to what is wrong with it, if anything."""

from __future__ import annotations

import re
import signal

from tools.fuzz.case import Case
from tools.fuzz.child import RAW, RAW_EXCEPTION, Outcome

MAX_PEAK_BYTES = 2 << 30
TRACEBACK = "Traceback (most recent call last)"
UNREACHABLE = "the hub does not answer"  # a name of the hub is no mistake; nothing is fetched in these tests


def defect(case: Case, outcome: Outcome) -> str | None:
    """Return the kind of defect; None when the case was accepted or refused as it should be."""
    if outcome.ran_code:
        return "code ran"
    if outcome.code is None:
        return "hang"
    if outcome.code < 0:
        return f"crash ({signal.Signals(-outcome.code).name})"
    if TRACEBACK in outcome.printed:
        return "traceback"
    if RAW_EXCEPTION in outcome.printed:
        return "raw control character in an exception"
    if RAW.search(outcome.printed):
        return "raw control character"
    if outcome.code == 3 and UNREACHABLE in outcome.printed:
        return None
    if outcome.code not in case.codes:
        return f"exit {outcome.code}"
    if outcome.code == 2 and not re.search("^hint: |^Try 'framefleet", outcome.printed, re.MULTILINE):
        return "no hint"
    if outcome.peak_bytes > MAX_PEAK_BYTES:
        return "memory"
    return None
