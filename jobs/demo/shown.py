"""What `framefleet demo` does, and what it prints about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from framefleet.jobs.demo.pictures import draw_pictures
from framefleet.jobs.demo.prepare import prepare_demo
from framefleet.jobs.demo.vocabulary import hint_about
from framefleet.jobs.gallery.gallery import INDEX
from framefleet.jobs.render.shown import show_render
from framefleet.jobs.shapes.size import read_size
from framefleet.jobs.show.console import stderr, stdout


def show_demo(output: Path, words: Sequence[str] = (), size: str | None = None, *, num_seeds: int = 1) -> int:
    """Render the demo, or one's own words; print where everything is; return the exit code.

    size: of one's own, as "9x64x64". num_seeds: clips of each prompt.
    """
    job = prepare_demo(output, words, read_size(size) if size else None, num_seeds=num_seeds)
    for hint in filter(None, map(hint_about, words)):
        stderr.say(f"hint: {hint}")
    if words and num_seeds > 1:
        stderr.say(f"each prompt {num_seeds} times, from other noise (--seeds 1: once)")
    code = show_render(job)
    places = {"clips": output / "clips", **draw_pictures(output)}
    if (page := output / INDEX).exists():
        places["gallery"] = page
    for name, place in places.items():
        stdout.say(f"{name + ':':<15}{place}")
    return code
