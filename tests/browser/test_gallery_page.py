"""The gallery in a browser, opened from its folder: what is seen, what keys do, what hostile texts do not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from framefleet import Clip, GalleryServer, gallery
from framefleet.pipeline.outputs.frames.frames import to_pixels
from framefleet.pipeline.outputs.frames.result import Audio
from framefleet.pipeline.outputs.media.media_settings import Media
from tests.answering import Answering, answered_by
from tests.browser.chromium import PHONE, WIDE, browser
from tests.gallery_output import HOSTILE, write_output

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROMPTS = ("a red ball", "一个黄色的星星", "a blue ring")
ROWS = [
    {"prompt": prompt, "guidance_scale": guidance, "seed": seed}
    for prompt in PROMPTS
    for guidance in (1.0, 4.0)
    for seed in range(4)
]


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("output")
    gallery(write_output(folder, ROWS, failures=["out of memory\nat step 3", *HOSTILE]).url_of(""))
    return folder


def until(page: Page, condition: str) -> None:
    """Wait for what a script says; Playwright's own way is refused by the page, as all code in texts."""
    for _ in range(2400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never came true: {condition}")


class Shown:
    """A page, and what it complained about."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.complaints: list[str] = []
        page.on("console", lambda message: self._heard(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))

    def _heard(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def go(self, fragment: str = "") -> Page:
        self.page.goto(f"{(self.folder / 'gallery/index.html').as_uri()}{fragment}")
        self.page.wait_for_selector("body[data-ready]")
        until(
            self.page,
            "[...document.querySelectorAll('.tile')].every(tile => tile.ariaLabel)"
            " && [...document.querySelectorAll('.failure')].every(row => row.childElementCount)",
        )
        return self.page

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def search(self, text: str) -> str:
        """Type into the search field; return how many rows there are."""
        self.page.fill("#search", text)
        until(
            self.page,
            f"app.state.q === {json.dumps(text)} && document.getElementById('wall').ariaBusy === 'false'",
        )
        return self.status

    @property
    def status(self) -> str:
        return self.page.inner_text("#status")

    def active(self) -> str:
        self.page.wait_for_selector(".tile.active[aria-label]")
        return str(self.page.get_attribute(".tile.active", "aria-label"))


@pytest.fixture
def shown(opened: Browser, output: Path) -> Iterator[Shown]:
    page = opened.new_page(viewport=WIDE)  # type: ignore[arg-type]
    page.set_default_timeout(60_000)
    found = Shown(page, output)
    yield found
    page.close()
    assert found.complaints == []


Show = Callable[..., Shown]


@pytest.fixture
def show(opened: Browser, tmp_path: Path) -> Iterator[Show]:
    """Return what writes an output of these rows, and opens its gallery on a wide screen."""
    all_shown = list[Shown]()

    def show(rows: list[dict[str, Any]], fragment: str = "", **written: Any) -> Shown:
        folder = tmp_path / "an output"
        gallery(write_output(folder, rows, **written).url_of(""))
        all_shown.append(Shown(opened.new_page(viewport=WIDE), folder))  # type: ignore[arg-type]
        all_shown[-1].go(fragment)
        return all_shown[-1]

    yield show
    for found in all_shown:
        found.page.close()
        assert found.complaints == []


def test_clips_play_while_they_are_in_view(shown: Shown) -> None:
    page = shown.go()
    until(page, "[...document.querySelectorAll('video.ready')].some(v => v.currentTime > 0)")
    assert page.evaluate("document.querySelectorAll('.tile video').length") <= 24
    page.evaluate("app.player.pauseAll(true)")
    until(page, "[...document.querySelectorAll('video')].every(v => v.paused)")
    assert shown.status == "24 clips"


def test_who_pauses_before_players_begin_sees_none(shown: Shown) -> None:
    page = shown.go()
    page.evaluate("app.change({q: 'seed=1'}).then(() => app.player.pauseAll(true))")
    until(page, "app.player.inView.size === 6 && app.player.tasks.length === 0")
    assert page.evaluate("[...document.querySelectorAll('video')].every(v => v.paused)")


def test_columns_are_there_before_somebody_asks(shown: Shown) -> None:
    page = shown.go()
    until(page, "[...app.records.columns.values()].every(column => column.parts.every(Boolean))")
    assert shown.search("seed=3") == "6 of 24 clips"


def test_any_web_server_serves_it(opened: Browser, output: Path) -> None:
    class Quiet(Answering, SimpleHTTPRequestHandler):
        """Serves files."""

    with answered_by(partial(Quiet, directory=str(output))) as url:
        page = opened.new_page(viewport=WIDE)  # type: ignore[arg-type]
        page.goto(f"{url}/gallery/")
        until(page, "[...document.querySelectorAll('video.ready')].some(v => v.currentTime > 0)")
        page.keyboard.press("Enter")
        page.wait_for_selector("#details[open] .record")
        assert page.inner_text("#details .command code") == f"framefleet replay {output} {0:032x}"
        page.close()


QUERIES = {
    "guidance_scale=4": "12 of 24 clips",
    "guidance_scale>=4 seed<2": "6 of 24 clips",
    "seed=0 seed=3": "12 of 24 clips",
    "黄色": "8 of 24 clips",
    '"red ball" -guidance_scale=1': "4 of 24 clips",
    'prompt="a blue ring"': "8 of 24 clips",
    "sharpness>2.15": "2 of 24 clips",
    "no such thing": "0 of 24 clips",
    "stars>0": "0 of 24 clips",
}


def test_any_column_can_be_asked(shown: Shown) -> None:
    shown.go()
    assert {query: shown.search(query) for query in QUERIES} == QUERIES


def test_rows_are_sorted_by_any_column_and_filters_are_what_is_searched(shown: Shown) -> None:
    page = shown.go("#sort=sharpness&down=1")
    assert "seed 3" in shown.active() and "a blue ring" in shown.active()
    page.click("#filters")
    page.check("#filter-panel label:has-text('一个') input")
    until(page, "document.getElementById('status').textContent.startsWith('8 of')")
    assert page.input_value("#search") == "prompt=一个黄色的星星"
    assert "q=prompt" in page.url


def test_filters_say_what_is_searched_and_keep_the_focus(shown: Shown) -> None:
    page = shown.go()
    shown.press("f")
    shown.search("guidance_scale=4 seed=0 seed=3")
    checked = page.locator("#filter-panel input:checked")
    assert checked.count() == 3
    page.locator("#filter-panel label:has-text('0')").first.locator("input").focus()
    shown.press("Space")
    until(page, "!document.getElementById('search').value.includes('seed=0')")
    assert checked.count() == 2 and page.evaluate("document.activeElement.type") == "checkbox"
    shown.search("")
    assert checked.count() == 0
    page.click("[data-view=failures]")
    page.wait_for_selector("#filter-panel summary:has-text('message')", state="attached")


def test_a_grid_has_chosen_columns_as_axes(shown: Shown) -> None:
    page = shown.go("#view=grid&x=seed&y=guidance_scale")
    assert page.locator(".axis-x bdi").all_inner_texts() == list("0123")
    assert page.inner_text(".axes") == "guidance_scale ↓  seed →"
    down = [label.replace("\u200b", "") for label in page.locator(".axis-y").all_inner_texts()]
    assert down == ["1", "4"]
    assert page.locator(".tile").count() == 8
    assert "1 of 3: a red ball" in page.inner_text("#page")
    shown.press("]", "ArrowDown", "ArrowRight")
    until(page, "document.querySelector('.tile.active')?.ariaLabel?.includes('一个')")
    assert "seed 1" in shown.active() and "guidance_scale 4" in shown.active()


NAMED = [row | {"label": f"draft {number}"} for number, row in enumerate(ROWS)]
# Each prompt has a seed of its own: seeds across and a page for each prompt would be one cell of six.
SPARSE = [{"prompt": f"ball {n}", "seed": 100 + n, "guidance_scale": n % 2} for n in range(6)]
SCORED = [{"prompt": "a ball", "seed": 7, "label": "ab"[n % 2], "sharpness": n % 5 / 10} for n in range(30)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row for row in NAMED if row["seed"] < 2], ["seed", "guidance_scale", "prompt"]),
        (SPARSE, ["seed", "", ""]),
        (SCORED, ["label", "", ""]),
    ],
    ids=["not what names rows", "cells that clips fill", "no score"],
)
def test_a_grid_begins_with_axes_that_say_most(
    rows: list[dict[str, Any]], expected: list[str], show: Show
) -> None:
    page = show(rows, "#view=grid").page
    assert [page.input_value(f"#axis-{axis}") for axis in ("x", "y", "page")] == expected
    assert rows is not SPARSE or page.locator(".tile").count() == 6


def test_clips_and_pages_are_in_the_order_of_the_table(show: Show) -> None:
    shown = show(ROWS, positions=[(7 * number) % 24 for number in range(24)])
    page = shown.page
    rows = page.evaluate(
        "app.select().then(rows => [...rows].map(row => app.records.at(row, 'row_indices')))"
    )
    assert rows == [f"[{position}]" for position in range(24)]
    page.evaluate("app.change({view: 'grid', page: 'prompt'})")
    page.wait_for_selector("body[data-view=grid] .axes")
    pages = page.evaluate("app.crossed.pages")
    for query in ("seed=3", "guidance_scale=4 seed=2", "sharpness>1"):
        shown.search(query)
        left = page.evaluate("app.crossed.pages")
        assert left == [prompt for prompt in pages if prompt in left]
    shown.search("")
    page.click("#page-after")
    until(page, "document.getElementById('page').textContent.startsWith('2 of 3')")
    second = page.inner_text("#page").partition(": ")[2]
    shown.search(f'prompt="{second}"')
    assert page.inner_text("#page") == f"1 of 1: {second}"
    shown.search("")
    assert page.inner_text("#page") == f"2 of 3: {second}"


def test_long_seeds_are_shown_with_all_digits(show: Show) -> None:
    seeds = [3_241_190_454, 3_241_190_455, 2**62 + 1]
    shown = show([{"prompt": "a ball", "seed": seed} for seed in seeds], "#view=grid&x=seed")
    page = shown.page
    assert page.locator(".axis-x bdi").all_inner_texts() == list(map(str, seeds))
    page.evaluate("app.change({view: 'wall'})")
    page.wait_for_selector(f".tile[aria-label*='seed {seeds[1]}']")
    assert shown.search(f"seed={seeds[1]}") == "1 of 3 clips"


def test_clips_of_a_grid_play_in_sync(shown: Shown) -> None:
    page = shown.go("#view=grid&x=seed&y=guidance_scale")
    until(page, "document.querySelectorAll('video.ready').length === 8")
    page.evaluate("document.querySelectorAll('video').forEach((video, n) => { video.currentTime = n / 9; })")
    page.wait_for_timeout(2500)
    times = "[...document.querySelectorAll('video')].map(video => video.currentTime)"
    medians = [1.0]
    while len(medians) < 60 and medians[-1] >= 0.15:  # a busy machine seeks slowly
        apart = []
        for _ in range(11):
            at = page.evaluate(times)
            apart.append(max(at) - min(at))
            page.wait_for_timeout(90)
        medians.append(sorted(apart)[5])
    assert medians[-1] < 0.15


def test_the_header_says_what_this_is(shown: Shown) -> None:
    page = shown.go()
    assert page.inner_text("#title") == shown.folder.name
    model, date, done, failed = page.locator("#about bdi").all_inner_texts()
    assert (model, done, failed) == ("folder", "24 done", "7 failed")
    assert (datetime.now(UTC).date() - datetime.fromisoformat(date).date()).days in (0, 1)


def test_clips_of_several_aspect_ratios_fill_their_lines(show: Show) -> None:
    def shaped(clip: Clip) -> Clip:
        height, width = ((48, 64), (36, 64), (64, 36), (64, 64), (28, 66))[int(clip.row_id, 16) % 5]
        return replace(clip, pixels=to_pixels(np.zeros((9, height, width, 3), np.uint8)))

    shown = show(ROWS, change=shaped)
    page = shown.page
    lines = page.evaluate("app.wall.layout.lines")
    for line in lines[:-1]:
        assert 1150 < line["lefts"][-1] + line["widths"][-1] <= 1200 and line["height"] < 300
    assert lines[-1]["height"] <= lines[-2]["height"], "few clips in the last line are not made larger"
    frame = page.locator(".tile .frame").nth(2).bounding_box()
    assert frame and frame["width"] / frame["height"] == pytest.approx(36 / 64, abs=0.02)
    rows = []
    for _ in range(24):
        rows.append(page.evaluate("app.wall.activeItem"))
        shown.press("ArrowRight")
    assert rows == list(range(24))
    for _ in range(24):
        shown.press("ArrowLeft")
    assert page.evaluate("app.wall.activeItem") == 0


def test_an_unknown_column_is_an_error_with_near_names(shown: Shown) -> None:
    page = shown.go()
    for query, near in (("guidence_scale>2", "guidance_scale"), ("guidance=4", "guidance_scale")):
        shown.search(query)
        assert f"Did you mean {near}?" in page.inner_text("#wall")
        assert page.get_attribute("#search", "aria-invalid") == "true"
    assert shown.search('"guidance=4"') == "0 of 24 clips"
    assert shown.search("red") == "8 of 24 clips" and page.get_attribute("#search", "aria-invalid") == "false"


def test_each_press_of_t_changes_the_colours(shown: Shown) -> None:
    page = shown.go()
    ground = "getComputedStyle(document.body).backgroundColor"
    seen = [page.evaluate(ground)]
    for _ in range(4):
        shown.press("t")
        seen.append(page.evaluate(ground))
    assert all(one != other for one, other in pairwise(seen))


def test_escape_closes_filters_and_keys_reach_clips_again(shown: Shown) -> None:
    page = shown.go()
    shown.press("f", "Escape")
    assert page.is_hidden("#filter-panel")
    shown.press("ArrowRight", "c")
    assert page.evaluate("app.marked") == [1]
    shown.press("f")
    page.locator("#filter-panel input[type=checkbox]").first.focus()
    shown.press("Escape", "c")
    assert page.is_hidden("#filter-panel") and page.evaluate("app.marked") == []


def test_keys_are_about_the_tile_under_the_mouse_and_escape_leaves_the_search_as_it_is(shown: Shown) -> None:
    page = shown.go()
    page.hover(".tile >> nth=0")
    page.hover(".tile >> nth=2")
    pointed = page.evaluate("app.wall.activeItem")
    assert pointed == page.evaluate("[...document.querySelectorAll('.tile')][2].item")
    shown.press("c")
    assert page.evaluate("app.marked") == [pointed]
    shown.press("c")
    page.fill("#search", "seed>=0")
    page.press("#search", "Escape")
    assert page.input_value("#search") == "seed>=0"
    assert page.evaluate("document.activeElement.id") == "wall"


def test_nothing_is_outlined_before_a_key_is_pressed(shown: Shown) -> None:
    page = shown.go()
    outline = "getComputedStyle(document.querySelector('.tile.active')).outlineStyle"
    assert page.evaluate(outline) == "none"
    shown.press("ArrowRight")
    assert page.evaluate(outline) == "solid"


def test_each_button_that_is_a_symbol_has_a_title(shown: Shown) -> None:
    page = shown.go("#view=grid&x=seed&y=guidance_scale")
    shown.press("f")
    symbols = (
        "[...document.querySelectorAll('button')].filter(b => !/[a-z]/i.test(b.textContent) && !b.title)"
    )
    assert page.evaluate(f"{symbols}.map(button => button.outerHTML)") == []


def test_a_phone_shows_which_page_of_the_grid_it_is(shown: Shown) -> None:
    shown.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    page = shown.go("#view=grid")
    for button in ("page-before", "page", "page-after"):
        box = page.locator(f"#{button}").bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]


def test_all_is_done_with_keys(shown: Shown) -> None:
    page = shown.go()
    shown.press("ArrowRight", "ArrowRight", "s", "ArrowLeft", "5")
    assert page.inner_text("#num-picks") == "2"
    shown.press("Enter")
    page.wait_for_selector("#details[open] .record")
    assert page.inner_text("#details .command code") == f"framefleet replay {shown.folder} {1:032x}"
    assert page.evaluate("document.querySelectorAll('#details .stars .set').length") == 5
    shown.press("n")
    page.keyboard.type("clean edges")
    shown.press("Escape", "Escape")
    page.wait_for_selector("#details:not([open])", state="attached")
    shown.press("c", "ArrowRight", "c", "v")
    page.wait_for_selector("#compare[open] video >> nth=1")
    shown.press("Space")
    until(page, "[...document.querySelectorAll('#compare video')].every(v => v.readyState > 1)")
    page.evaluate("document.getElementById('compare').together.seek(0)")
    shown.press(".", ".")
    times = page.evaluate("[...document.querySelectorAll('#compare video')].map(v => v.currentTime)")
    assert times[0] == times[1] == pytest.approx(2.5 / 8, abs=0.01)
    assert "seed" in page.inner_text("#compare .differences")
    shown.press("Escape", "g")
    page.wait_for_selector("body[data-view=grid]")
    shown.press("?")
    page.wait_for_selector("#help-text[open]")


def test_picks_are_exported_as_a_table_and_kept(shown: Shown, tmp_path: Path) -> None:
    page = shown.go()
    page.evaluate("app.picks.of.clear()")
    shown.press("3", "ArrowRight", "5", "n")
    page.wait_for_selector("#details[open]")
    page.keyboard.type('say "ok"')
    shown.press("Escape", "Escape")
    with page.expect_download() as download:
        page.click("#export")
    download.value.save_as(tmp_path / download.value.suggested_filename)
    best, other = map(json.loads, (tmp_path / "picks.jsonl").read_text("utf-8").splitlines())
    assert best == ROWS[1] | {
        "row_id": f"{1:032x}",
        "stars": 5,
        "note": 'say "ok"',
        "path": f"clips/00/{1:032x}.mp4",
        "label": "row 1",
        "sharpness": 0.1,
    }
    assert (other["stars"], other["seed"]) == (3, 0)
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.inner_text("#num-picks") == "2"
    page.click("[data-view=picks]")
    until(page, "document.getElementById('status').textContent === '2 of 24 clips'")


def test_a_chart_begins_with_a_score_and_not_with_a_count(show: Show) -> None:
    rows = [row | {"draws": number % 7, "taste": number / 10} for number, row in enumerate(ROWS)]
    page = show(rows, "#view=table").page
    assert page.input_value(".summary select >> nth=0") in ("taste", "sharpness")


def test_a_table_has_means_by_a_column_and_a_chart_that_opens_clips(shown: Shown) -> None:
    page = shown.go("#view=table&by=guidance_scale")
    heads = [cell.inner_text() for cell in page.query_selector_all(".summary thead th")]
    assert heads == ["guidance_scale", "clips", "mean sharpness"]
    lines = [
        [cell.inner_text() for cell in line.query_selector_all("th, td")]
        for line in page.query_selector_all(".summary tbody tr")
    ]
    means = {
        f"{scale:g}": sum(n / 10 for n, row in enumerate(ROWS) if row["guidance_scale"] == scale) / 12
        for scale in (1.0, 4.0)
    }
    assert lines == [[scale, "12", f"{mean:.4g}"] for scale, mean in means.items()]
    assert len(page.query_selector_all(".chart circle")) == len(ROWS)
    page.click(".chart circle >> nth=0")
    until(page, "document.getElementById('details').open")
    shown.press("Escape")
    page.click(".chart circle >> nth=0")
    shown.press("ArrowRight", "Escape", "End", "PageDown", "ArrowLeft", "Space")
    assert not shown.complaints
    page.click(".summary tbody button >> nth=1")
    until(page, "app.state.view === 'clips'")
    assert shown.status == "12 of 24 clips"


def test_a_served_gallery_shows_each_what_others_choose(opened: Browser, tmp_path: Path) -> None:
    store = write_output(tmp_path, ROWS[:6])
    gallery(store.url_of(""))
    with GalleryServer(store) as served:
        pages = [opened.new_context().new_page() for _ in range(2)]  # of two people: they share no storage
        complaints: list[str] = []
        for page in pages:
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(served.url)
            page.wait_for_selector("body[data-ready]")
        one, other = pages
        one.keyboard.press("4")
        other.keyboard.press("ArrowRight")
        other.keyboard.press("2")
        for page in pages:
            until(page, "document.getElementById('num-picks').textContent === '2'")
        kept = [json.loads(line) for line in store.read("stars.jsonl").splitlines()]
        assert sorted(pick["stars"] for pick in kept) == [2, 4]
        other.reload()
        other.wait_for_selector("body[data-ready]")
        until(other, "document.getElementById('num-picks').textContent === '2'")
        assert not complaints
        for page in pages:
            page.context.close()


def test_what_failed_has_its_own_view(shown: Shown) -> None:
    page = shown.go("#view=failures")
    assert shown.status == "7 failed rows"
    assert "out of memory" in page.inner_text(".failure >> nth=6 >> .message")
    page.click(".failure >> nth=0")
    until(page, "document.getElementById('details').innerText.includes('Traceback')")


def test_a_prompt_with_html_or_script_in_it_does_nothing(show: Show) -> None:
    rows = [{"prompt": text, "label": text, "negative_prompt": text} for text in HOSTILE]
    shown = show(rows, failures=HOSTILE)
    page = shown.page
    title = page.title()
    for view in ("clips", "grid", "failures"):
        page.evaluate("view => app.change({view})", view)
        page.wait_for_selector(f"body[data-view={view}]")
        page.wait_for_timeout(100)
    page.evaluate("app.change({view: 'clips'})")
    page.wait_for_selector(".tile[aria-label]")
    page.hover(".tile >> nth=0")
    shown.press("f")
    page.wait_for_selector("#filter-panel label")
    for number in range(len(rows)):
        page.evaluate("row => app.open(row)", number)
        page.wait_for_selector("#details[open] .record")
        assert rows[number]["prompt"] in str(page.text_content("#details .record"))
    page.evaluate("showCompare(app, [0, 1, 2, 3])")
    page.wait_for_selector("#compare[open] .differences")
    assert page.title() == title
    assert page.locator("img[src='x']").count() == page.locator("body script").count() == 0


def test_inline_code_and_other_places_are_refused_by_the_page_itself(shown: Shown) -> None:
    page = shown.go()
    refused = """() => {
        const image = document.createElement('img');
        image.src = 'http://127.0.0.1:9/x.png';
        document.body.append(image);
        const script = document.createElement('script');
        script.textContent = 'document.title = "ran"';
        document.body.append(script);
        document.body.insertAdjacentHTML('beforeend', '<a id="a" onclick="document.title = 1">a</a>');
        document.getElementById('a').click();
        return document.title;
    }"""
    assert page.evaluate(refused) not in ("ran", "1")
    assert len(shown.complaints) == 3 and all("Content Security Policy" in told for told in shown.complaints)
    shown.complaints.clear()


@pytest.mark.parametrize("kind", ["mkv", "png.zip"])
def test_what_no_browser_plays_shows_its_still_and_a_link(kind: Any, show: Show) -> None:
    shown = show(ROWS[:2], media=Media(format=kind))
    page = shown.page
    until(page, "[...document.querySelectorAll('.tile img')].some(i => i.naturalWidth)")
    assert page.inner_text(".tile .badge >> nth=0") == kind
    shown.press("Enter")
    page.wait_for_selector("#details figure img")
    assert page.get_attribute("#details .links a", "href") == f"../clips/00/{0:032x}.{kind}"


def still(clip: Clip) -> Clip:
    return replace(clip, pixels=to_pixels(clip.frames[:1]))  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "tag", "change"), [("mp4", "video", None), ("png", "img", "still"), ("flac", "audio", "sound")]
)
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_clip_that_is_gone_or_damaged_says_what_mends_it(
    kind: Any, tag: str, change: str | None, damage: str, show: Show
) -> None:
    changed = {"change": globals()[change]} if change else {}
    shown = show(ROWS[:1], media=Media(format=kind), **changed)
    (clip,) = shown.folder.glob("clips/*/*")
    clip.unlink() if damage == "gone" else clip.write_bytes(clip.read_bytes()[:40])
    page = shown.go()
    page.wait_for_selector(".tile[aria-label]")
    shown.press("Enter")
    page.wait_for_selector("#details .unplayed code")
    assert f"framefleet repair '{shown.folder}'" in page.inner_text("#details .unplayed")
    assert page.query_selector(f"#details .stage {tag}") is None
    shown.complaints.clear()  # of the clip


def sound(clip: Clip) -> Clip:
    samples = np.sin(np.arange(16_000) / 9)[None].astype(np.float32)
    audio = Audio(samples=samples, sample_rate=16_000)
    return replace(clip, pixels=None, audio=audio, audio_sha256="0" * 64)


@pytest.mark.parametrize(("kind", "change"), [("png", still), ("flac", sound)])
def test_images_and_sounds_are_clips_too(kind: Any, change: Callable[[Clip], Clip], show: Show) -> None:
    shown = show(ROWS[:2], media=Media(format=kind), change=change)
    page = shown.page
    page.wait_for_selector(".tile[aria-label] >> nth=1")
    if kind == "flac":
        shown.press("Space")
        until(page, "app.player.sound.currentTime > 0")
    shown.press("Enter")
    page.wait_for_selector("#details img" if kind == "png" else "#details audio")


def test_a_page_that_is_open_offers_a_newer_gallery(show: Show) -> None:
    shown = show(ROWS[:2])
    page = shown.page
    page.evaluate("app.look()")
    assert page.is_hidden("#newer")
    gallery(write_output(shown.folder, ROWS[:5], run="r2").url_of(""))
    page.evaluate("app.look()")
    page.wait_for_selector("#newer:visible")
    with page.expect_navigation():
        page.click("#reload")
    until(page, "document.getElementById('status')?.textContent === '5 clips'")
    # Of the page before, whose files were replaced.
    shown.complaints[:] = [text for text in shown.complaints if "ERR_FILE_NOT_FOUND" not in text]


@pytest.mark.parametrize("view", ["clips", "grid", "failures"])
def test_a_phone_shows_no_more_than_its_width(view: str, shown: Shown) -> None:
    shown.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    page = shown.go(f"#view={view}")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
