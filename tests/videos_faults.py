"""Which request to a server of the videos API meets which fault, by a file that may change while it runs.

A fault is a value for all requests, or {"value": ..., "prompt": ..., "first": N, "every": N, "at": [...]} for
those with this text in their prompt, the first N, every Nth, at these steps. Counts begin anew with each
change of the file and each start of the server. The faults, and what their values mean:

    create:   busy: 429, and this Retry-After, or none if it is true
              bill_422: 422 for this word
              drop_answer: the job is there, but the connection ends without an answer
              redirect_create: 302 to another host
              idempotent: whether the same Idempotency-Key gets the same id; gateways do so without
    poll:     poll_hangs: so many seconds
              forget: 404 from then on
              expire: the same once the clip is done; "status" says so instead
              html: a page of a proxy
    content:  html, empty, octet (no type), json_content (an error with status 200)
              half: half a file; "cut" ends the connection there
    clip:     slow_s: it takes so long
              never_done
              failed: with this message
              frames: so many more; size: this one, as "32x16"; fps: this rate
              unsteady: other bits each time that the same is asked
              level, drop_frame, other_scheduler (of a model): one clip in N, by `is_spoilt`
    all:      loading_s: 503, for so long after the start
              echo_key: the key stands in what is answered
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

_STEPS = {"busy": ["create"], "html": ["poll", "content"]}  # where they are, unless a rule says `at`


class Faults:
    """file: if there is none, all is well."""

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
