"""The page of `report --serve` in a browser: it follows the job, clips play on, hostile texts do nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from framefleet import Output, StatusServer
from framefleet.cluster.driver.epoch_lock import HELD
from tests.browser.chromium import PHONE, WIDE, browser
from tests.gallery_output import HOSTILE, write_output
from tests.outputs import UNDER_WAY, write_driver

ROWS = [{"prompt": prompt, "seed": seed} for seed, prompt in enumerate((*HOSTILE, "a red ball"))]
FIGURES = {"worker_seconds/denoise": 90.0, "worker_seconds/rows": 10.0, f"failures/{HOSTILE[0]}": 2.0}


def test_the_page_follows_a_job_and_what_plays_goes_on(tmp_path: Path) -> None:
    HELD.add("me")
    store = write_output(tmp_path, ROWS[:2], failures=HOSTILE)
    write_driver(store, progress=replace(UNDER_WAY, figures=FIGURES), host=HOSTILE[0])
    with StatusServer(Output(store), every_s=1.0) as served, browser() as opened:
        page, complaints = opened.new_page(viewport=WIDE), list[str]()  # type: ignore[arg-type]
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(served.url)
        title = page.title()
        assert page.inner_text(".tile >> nth=0").split() == ["5", "rows", "done,", "of", "12"]
        assert page.locator("video").count() == 2
        page.evaluate("document.querySelector('video').mark = true")
        write_output(tmp_path, ROWS, failures=HOSTILE, run="r2")
        write_driver(store, progress=replace(UNDER_WAY, figures=FIGURES, done=9))
        page.wait_for_selector(".tile:has-text('11')")
        page.wait_for_selector("video >> nth=3")
        page.wait_for_timeout(300)
        marked = "[...document.querySelectorAll('video')].filter(v => v.mark)"
        assert page.evaluate(f"{marked}.map(v => v.paused)") == [False], "it is the same, and plays"
        assert "90.0%" in page.inner_text("#part-charts")
        assert page.title() == title and page.locator("img[src='x'], main script").count() == 0
        assert not complaints
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        page.context.set_offline(True)
        page.wait_for_selector("#lost:visible")
