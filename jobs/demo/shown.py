"""What `framefleet demo` does, and what it prints about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from framefleet.jobs.demo.pictures import draw_pictures
from framefleet.jobs.demo.prepare import prepare_demo
from framefleet.jobs.gallery.gallery import INDEX
from framefleet.jobs.render.shown import show_render
from framefleet.jobs.shapes.size import read_size
from framefleet.jobs.show.console import stdout


def show_demo(output: Path, words: Sequence[str] = (), size: str | None = None) -> int:
    """Render the demo, or one's own words; print where everything is; return the exit code.

    size: of one's own, as "9x64x64".
    """
    code = show_render(prepare_demo(output, words, read_size(size) if size else None))
    places = {"clips": output / "clips", **draw_pictures(output)}
    if (page := output / INDEX).exists():
        places["gallery"] = page
    for name, place in places.items():
        stdout.say(f"{name + ':':<15}{place}")
    return code
