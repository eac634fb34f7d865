"""How soon a gallery in a browser answers: until its first clip plays, until what was asked is there.

From what a person does to the frame that shows it, by the page's own clock, with all that lies between: the
rest of the search field, blocks that are loaded, tiles with their captions.
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
# Do something; return milliseconds until the wall shows its rows, with the words of all tiles, in a frame.
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
        const some = values?.length > 1 ? values.slice(0, 2).map(([value]) => ['=', value])
            : kind === 'number' ? [0.3, 0.6].map((part) => ['>=', least + part * (most - least)])
            : [[':', 'a'], [':', 'b']];
        queries[name] = some.map(([operator, value]) => termText(name, operator, value));
    }
    return queries;
}"""
WORDS = ("red", "blue")


@dataclass(slots=True)
class Times:
    """Milliseconds, by column ("words": a search in all texts): of its first use, and of its next."""

    first_clip: dict[str, float] = field(default_factory=dict)
    first_filter: dict[str, float] = field(default_factory=dict)
    next_filter: dict[str, float] = field(default_factory=dict)
    first_sort: dict[str, float] = field(default_factory=dict)
    next_sort: dict[str, float] = field(default_factory=dict)


def times_of(pages: Callable[[], Page], columns: Collection[str] | None = None) -> Times:
    """Measure a gallery: each use of each column on a page of its own, as soon as that shows its first clip.

    pages: opens the gallery anew. columns: just these and words; None is all that vary.
    """
    times = Times()
    page = pages()
    queries = {"words": WORDS, **page.evaluate(_QUERIES)}
    page.close()
    for name in queries if columns is None else ["words", *columns]:
        asked, other = queries[name]
        uses = [["search", asked], ["search", other]]
        times.first_clip[name], times.first_filter[name], times.next_filter[name] = _used(pages(), uses)
        if name != "words":
            uses = [["sort", name], ["sort", ""], ["sort", name]]
            _, times.first_sort[name], _, times.next_sort[name] = _used(pages(), uses)
    return times


def _used(page: Page, uses: Sequence[Sequence[str]]) -> list[float]:
    """Return how long the first clip took, and then each use."""
    while page.evaluate("window.firstClipAt") is None:
        page.wait_for_timeout(10)
    took = [page.evaluate("window.firstClipAt"), *(page.evaluate(_ANSWER, use) for use in uses)]
    page.close()
    return took


def watched(page: Page, url: str) -> Page:
    """Open a gallery on a page that notes when its first clip is seen."""
    page.add_init_script(_FIRST_CLIP)
    page.goto(url)
    page.wait_for_selector("body[data-ready]")
    return page
