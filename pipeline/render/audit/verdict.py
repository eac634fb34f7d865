"""What an audit speaks for, and what becomes of it. Plain values: they are pickled between machines."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

from framefleet.pipeline.request import Request, is_model
from framefleet.pipeline.rows.tables.rows import shape_of

# unrepeatable: two plain calls of the row differ, so that none can say what it should be.
Verdict = Literal["equal", "differs", "unrepeatable"]
Digests = tuple[str | bytes | None, ...]  # of frames, sound and what else a row rendered


_TOLD: dict[Verdict, str] = {
    "equal": "row {row_id} of {kind} equals its plain call; {seconds:.1f} s",
    "differs": "batched rows of {kind} differ from plain calls, as row {row_id} shows: "
    "from now on each is rendered by a plain call",
    "unrepeatable": "rows of {kind} cannot be repeated: two plain calls of row {row_id} differ",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """What became of one audit. seconds: that it took."""

    kind: str
    row_id: str
    verdict: Verdict
    seconds: float


def kind_of(request: Request) -> str:
    """Return what rows share that an audit speaks for: recipe, second models, shape."""
    models = sorted(value["name"] for value in request.arguments.values() if is_model(value))
    return " ".join([request.recipe, *models, shape_of(request.arguments)]).rstrip()


def verdict_of(clip: Digests, first: Digests | None, second: Digests | None) -> Verdict:
    """Return what digests say: of a clip, and of two plain calls, None where one failed."""
    if first == clip:
        return "equal"
    return "differs" if first == second else "unrepeatable"


def told(audited: Audited) -> str:
    """Return what the log says of it."""
    return _TOLD[audited.verdict].format(kind=audited.kind, row_id=audited.row_id, seconds=audited.seconds)


def level_of(audited: Audited) -> int:
    return logging.INFO if audited.verdict == "equal" else logging.WARNING
