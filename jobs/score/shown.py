"""What `framefleet score` does, and what it prints about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from framefleet.jobs.score.score import score_output
from framefleet.jobs.show.console import stderr
from framefleet.jobs.show.headline import duration
from framefleet.jobs.show.progress import watch_on
from framefleet.pipeline.outputs.layout import SCORES
from framefleet.pipeline.outputs.stores.store import Store


def show_score(output: str, scores: Sequence[str], *, storage_options: dict[str, Any], **how: Any) -> int:
    """Score an output; return the exit code."""
    store = Store(output, storage_options)
    with watch_on(stderr) as watch:
        found = score_output(store, scores, watch, **how)
    if not found.done and not found.num_damaged:
        stderr.say("nothing to do: every clip has these scores")
    else:
        stderr.say(f"{found.done:,} clips scored in {duration(found.elapsed_s)}: {', '.join(found.columns)}")
        stderr.say(f"scores: {store.url_of(SCORES)}")
    for name, failed in found.unscored.items():
        stderr.say(f"{failed.num:,} clips have no {name}, as {failed.example}")
    if found.num_damaged:
        stderr.say(f"{found.num_damaged:,} clips are damaged and have no scores, as {found.damage}")
    return 1 if found.num_damaged or found.unscored else 0
