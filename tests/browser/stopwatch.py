"""How soon a gallery in a browser answers: until its first clip plays, and until what was asked is on the screen.

All from what a person does to the frame that shows it, by the page's own clock: the pause of the search field, the
blocks that are loaded, the tiles with their captions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Before the page's own scripts: the moment at which a frame of the first clip is on the screen.
_FIRST_CLIP = """
window.firstClipAt = null;
document.addEventListener('loadeddata', ({target}) => target.requestVideoFrameCallback?.((now) => {
    window.firstClipAt ??= now;
}), true);
"""
# Do something; return the milliseconds until the wall shows its rows, with the words of all tiles, in a frame.
_ANSWER = """async ([what, value]) => {
    const wall = document.getElementById('wall');
    const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
    const field = document.getElementById(what);
    const event = what === 'search' ? 'input' : 'change';
    const isAsked = () => app.state[what === 'search' ? 'q' : what] === value;
    const isShown = () => wall.ariaBusy === 'false'
        && [...wall.querySelectorAll('.tile')].every((tile) => tile.ariaLabel);
    field.value = value;
    const began = performance.now();
    field.dispatchEvent(new Event(event));
    while (!isAsked() || !isShown()) await frame();
    await frame();
    return performance.now() - began;
}"""
# What is typed to filter by each column that varies, in two values; and words.
_QUERIES = """() => {
    const queries = {};
    for (const {name, kind, values, least, most, varies} of app.records.columns.values()) {
        if (!varies) continue;
        if (values?.length > 1) queries[name] = values.slice(0, 2).map(([value]) => termText(name, '=', value));
        else if (kind === 'number') queries[name] = [0.3, 0.6].map((part) => `${name}>=${least + part * (most - least)}`);
        else queries[name] = ['a', 'b'].map((letter) => `${name}:${letter}`);
    }
    return queries;
}"""
WORDS = ("red", "blue")


@dataclass(slots=True)
class Times:
    """What was measured, in milliseconds. Of each column the first use and the next; "words" is a search in all texts."""

    first_clip: float
    first_filter: dict[str, float] = field(default_factory=dict)
    next_filter: dict[str, float] = field(default_factory=dict)
    first_sort: dict[str, float] = field(default_factory=dict)
    next_sort: dict[str, float] = field(default_factory=dict)


def times_of(pages: Callable[[], Page], columns: Collection[str] | None = None) -> Times:
    """Measure a gallery: each use of each column on a page of its own, as soon as that shows its first clip.

    pages: opens the gallery anew. columns: just these and words; None is all that vary.
    """
    page = pages()
    times = Times(first_clip=_first_clip_ms(page))
    queries = page.evaluate(_QUERIES)
    page.close()
    chosen = {name: asked for name, asked in queries.items() if columns is None or name in columns}
    for name, (asked, other) in {"words": WORDS, **chosen}.items():
        times.first_filter[name], times.next_filter[name] = _used(
            pages(), [["search", asked], ["search", other]]
        )
    for name in chosen:
        times.first_sort[name], _, times.next_sort[name] = _used(
            pages(), [["sort", name], ["sort", ""], ["sort", name]]
        )
    return times


def _used(page: Page, uses: Sequence[Sequence[str]]) -> list[float]:
    """Return how long each took, one after the other."""
    _first_clip_ms(page)
    took = [float(page.evaluate(_ANSWER, use)) for use in uses]
    page.close()
    return took


def watched(page: Page, url: str) -> Page:
    """Open a gallery on a page that notes when its first clip is seen."""
    page.add_init_script(_FIRST_CLIP)
    page.goto(url)
    return page


def _first_clip_ms(page: Page) -> float:
    """Wait for it; return milliseconds since the page was asked for."""
    while (at := page.evaluate("window.firstClipAt")) is None:
        page.wait_for_timeout(10)
    return float(at)
