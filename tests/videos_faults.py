"""Decide which requests meet which faults, by a file that may change while the server runs.

A fault is a value for all requests, or {"value": ..., "prompt": ..., "first": N, "every": N, "at": [...]} for
those with this text in their prompt, the first N, every Nth, at these steps. Counts start anew when the file
changes or the server starts. The faults by step, and what their values mean (true does for most):

    create:   busy: 429; a number is sent as Retry-After
              bill_422: 422 that names this field
              drop_answer: create the job, then close the connection without an answer
              redirect_create: 302 to another host
              html: a page with status 200, in place of an id
              long_id: so many characters more in the id of the answer
              as_url: an address in place of an image's bytes
              idempotent: whether requests with the same Idempotency-Key get one id (without: gateways only)
    poll:     forget: the id is unknown from now on
              expire: the same, once the clip is done; with "status" the job says so
              html: a proxy's page with status 200
              status: this status code, with an error that is not about the clip; also at create
              absent: 404, though it has the clip
              state: a word for how far it is
    content:  html, status, empty, half, octet (no media type), json_content (an error with status 200)
              link: where the clip is, for gateways and with `as_url`
    clip:     slow_s: seconds before it is rendered
              never_done
              failed: the error message, which may begin with a code and ": "
              frames: how many more; size: another one, e.g. "32x16"; fps: another rate
              unsteady: other bits whenever the same request is repeated
              level: one clip in N, see `is_spoilt`
    all:      loading_s: 503 for this long after the start
              echo_key: answers contain the key
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

_STEPS = {"busy": ["create"], "html": ["poll", "content"]}  # unless a rule says `at`


class Faults:
    """file: if it does not exist, there are no faults."""

    def __init__(self, file: Path | None) -> None:
        self._file, self._text = file, ""
        self._rules: dict[str, Any] = {}
        self._counts: Counter[str] = Counter()
        self._since = time.monotonic()
        self._read()

    def value(self, name: str, prompt: str = "", step: str = "") -> Any:
        """Return the fault's value if this request meets it, else None."""
        self._read()
        if name not in self._rules:
            return None
        rule = self._rules[name]
        rule = rule if isinstance(rule, dict) else {"value": rule}
        if rule.get("prompt", "") not in prompt or step not in rule.get("at", _STEPS.get(name, [step])):
            return None
        self._counts[name] += 1
        count = self._counts[name]
        is_met = count <= rule.get("first", count) and count % rule.get("every", 1) == 0
        return rule.get("value", True) if is_met else None

    def is_loading(self) -> bool:
        seconds = self.value("loading_s")
        return seconds is not None and time.monotonic() - self._since < seconds

    def _read(self) -> None:
        text = self._file.read_text() if self._file and self._file.exists() else "{}"
        if text != self._text:
            self._text, self._rules = text, json.loads(text)
            self._counts.clear()
            self._since = time.monotonic()
