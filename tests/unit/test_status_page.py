"""The page of `report --serve` is made of the output alone, and can only be looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from framefleet import Output, StatusServer, Store
from framefleet.cluster.driver.epoch_lock import HELD
from framefleet.plugins.pages.report.live_page import newest_clips
from tests.outputs import write_driver
from tests.small_output import rendered
from tests.unit.test_gallery_server import ask


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    rendered(store, 7, rows_in_a_part=1)
    HELD.add("me")
    write_driver(store)
    return store


def test_the_page_and_its_clips_are_served_and_nothing_can_be_changed(store: Store) -> None:
    with StatusServer(Output(store)) as served:
        status, page = ask(served, "status.html")
        assert status == 200 and b"5</b>" in page and b"worker-0" in page
        (clip,) = {clip.path for clip in newest_clips(store, 1)}
        assert f'<video src="{clip}"'.encode() in page
        assert ask(served, clip) == (200, store.read(clip))
        assert ask(served, "live.js")[0] == 200
        assert ask(served, "status.html", {"stars": 5})[0] == 404
        for path in ("job.json", "drivers/000001.json", "records/", "clips/../drivers/000001.json"):
            assert ask(served, path)[0] == 404


def test_the_newest_clips_are_found_in_the_last_parts(store: Store) -> None:
    assert len(newest_clips(store, 3)) == 3
    assert len(newest_clips(store, 8)) == 4, "the parts before are not read"
    assert newest_clips(Store(store.url_of("nothing")), 8) == []
