"""One page and a JSON tell what an output cost and how it went, whoever wrote its records."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

import framefleet
from framefleet.pipeline.errors import rounded
from framefleet.pipeline.metrics import WORKER_SECONDS
from framefleet.pipeline.outputs.parts.records import FailureRecord, Record
from framefleet.plugins.pages.report.charts import mean_rate, rate_unit
from framefleet.plugins.pages.report.figures import MAX_BINS, Timeline
from tests.commands import command
from tests.gallery_output import write_output as write_gallery_output
from tests.outputs import UNDER_WAY, write_driver, write_output
from tests.rows import NOON, failure, record

HOSTILE = "\x1b[31m</style><script>alert(1)</script><img src=x onerror=alert(2)>$\\frac{a}{b}$\ud7ff"


def lost(digit: str) -> FailureRecord:
    """Return the failure of a row that has no record."""
    return failure(row_id=digit * 32)


def rows(count: int = 6) -> list[Record]:
    """Return records of two workers: each row took ten seconds, and waited one."""
    return [
        record(
            number,
            bytes=1000,
            duration_s=2.0,
            worker=f"worker-{number % 2}",
            started_at=NOON + timedelta(seconds=10 * number),
            finished_at=NOON + timedelta(seconds=10 * number + 10),
            batch_size=2.0,
            denoise_s=16.0,
            decode_s=1.0,
            compute_s=9.0,
            idle_s=1.0,
            idle_causes='{"rows":0.75,"uploads":0.25}',
            environment='{"gpu":"NVIDIA H200","torch":"2.13.0"}',
        )
        for number in range(count)
    ]


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_records_are_summed_by_state_worker_and_cause(tmp_path: Path) -> None:
    store = write_output(tmp_path, rows(), [lost("e"), lost("f")], num_invalid=1)
    write_driver(store, ended=True)
    found = framefleet.report(str(tmp_path), write=False)
    assert (found.rows.total, found.rows.done, found.rows.failed, found.rows.left) == (12, 6, 2, 4)
    assert found.rows.invalid == 1
    assert (found.clips.num_bytes, found.clips.seconds, found.clips.mean_batch) == (6000, 12.0, 2.0)
    assert found.clips.batch_sizes == {2: 6}
    assert [(one.name, one.rows, one.idle_s) for one in found.work.workers] == [
        ("worker-0", 3, 3.0),
        ("worker-1", 3, 3.0),
    ]
    assert found.work.busy_s == pytest.approx(6 * 9)
    assert found.work.idle == {"rows": 4.5, "uploads": 1.5}
    assert found.work.idle_share == pytest.approx(6 / 60)
    assert found.failures_by_type == {"ValueError": 2}
    assert [(one.rows, one.row.message) for one in found.failures] == [(2, "no")]
    assert found.environments[0].values["gpu"] == "NVIDIA H200"
    assert (found.models[0].model, found.models[0].digest) == ("tiny", "c" * 64)


def test_the_price_of_a_gpu_hour_gives_what_it_cost(tmp_path: Path) -> None:
    write_output(tmp_path, rows(), job={"fleet": {"gpus_per_worker": 2.0}})
    cost = framefleet.report(str(tmp_path), price=36.0, write=False).cost
    assert cost is not None
    assert cost.gpu_hours == pytest.approx(60 / 3600 * 2)
    assert (cost.total, cost.per_clip) == (pytest.approx(1.2), pytest.approx(0.2))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["report", "--serve", "--price", "0"], "--price 0.0: it has no effect with --serve"),
        (["report", "--serve", "--accepted", "true"], "--accepted true: it has no effect with --serve"),
        (["report", "--serve", "--json"], "--json: it has no effect with --serve"),
        (["report", "--port", "8811"], "--port 8811: it has no effect without --serve"),
        (["report", "--every", "2"], "--every 2.0: it has no effect without --serve"),
        (["gallery", "--port", "8811"], "--port 8811: it has no effect without --serve"),
    ],
)
def test_an_option_without_effect_is_refused(tmp_path: Path, words: list[str], problem: str) -> None:
    write_output(tmp_path, rows())
    ended = command(words[0], tmp_path, *words[1:])
    assert (ended.exit_code, problem in ended.stderr) == (2, True), ended.stderr
    assert not {"report.html", "gallery"} & {*os.listdir(tmp_path)}


def test_both_files_are_written_and_json_can_be_printed_instead(tmp_path: Path) -> None:
    write_output(tmp_path, rows())
    ended = command("report", tmp_path, "--json")
    assert json.loads(ended.stdout)["rows"]["done"] == 6
    assert not (tmp_path / "report.html").exists()
    ended = command("report", tmp_path, "--price", "2.5")
    assert ended.exit_code == 0
    assert str(tmp_path / "report.html") in ended.stdout.replace("\n", "")
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["cost"]["price_per_gpu_hour"] == 2.5
    assert datetime.fromisoformat(told["throughput"]["finished"]) == NOON + timedelta(seconds=60)


def test_the_page_asks_no_network_and_shows_its_numbers_as_text(tmp_path: Path) -> None:
    write_output(tmp_path, rows(), [lost("f")])
    framefleet.report(str(tmp_path), price=2.5)
    page = Tags((tmp_path / "report.html").read_text())
    assert not {"script", "img", "link", "iframe", "object"} & page.tags
    assert "src" not in page.attributes
    assert {
        "Rows by state",
        "Throughput",
        "Batch sizes",
        "Time of workers",
        "Failures",
        "Environment",
    } <= set(page.texts)
    assert {"0:32, idle 10.0%", "ValueError", "worker-0"} & set(page.texts)
    assert "aria-label" in page.attributes


def test_a_page_is_small_and_names_who_has_no_name(tmp_path: Path) -> None:
    adopted = record(7, worker="", compute_s=3.0, idle_s=1.0)
    store = write_output(tmp_path, [*rows(), adopted], [lost("f")], job={"fleet": {"gpus_per_worker": 0}})
    write_driver(store, ended=True)
    framefleet.report(str(tmp_path), price=36.0)
    page = (tmp_path / "report.html").read_text()
    assert len(page) < 60_000
    assert {"adopted", "at 36 per worker hour"} <= set(Tags(page).texts)


def test_what_records_say_is_no_html_no_formula_and_no_control(tmp_path: Path) -> None:
    bad = record(
        1,
        worker=HOSTILE,
        node=HOSTILE,
        model=HOSTILE,
        environment=json.dumps({HOSTILE: HOSTILE}),
        idle_causes="7",
    )
    causes = record(2, idle_s=1.0, idle_causes=json.dumps({HOSTILE: 1.0}), environment="[" * 10_000)
    failed = failure(error_type=HOSTILE, message=HOSTILE * 1000)
    write_output(tmp_path, [bad, causes], [failed])
    framefleet.report(str(tmp_path))
    text = (tmp_path / "report.html").read_text()
    page = Tags(text)
    assert not {"script", "img"} & page.tags
    assert "\x1b" not in text
    assert len(text) < 1_000_000


def test_numbers_that_cannot_be_are_not_summed(tmp_path: Path) -> None:
    far = datetime.max.replace(tzinfo=NOON.tzinfo)
    bad = record(
        1,
        denoise_s=float("nan"),
        idle_s=float("inf"),
        decode_s=-1e300,
        batch_size=float("inf"),
        duration_s=None,
        bytes=-5,
        finished_at=far,
        started_at=datetime.min.replace(tzinfo=NOON.tzinfo),
        height=None,
        num_frames=None,
    )
    write_output(tmp_path, [bad])
    found = framefleet.report(str(tmp_path), price=1.0, write=False)
    assert (found.work.busy_s, found.work.idle_s, found.clips.num_bytes) == (0.0, 0.0, 0)
    assert found.throughput.bins == ()
    assert found.clips.shapes == {"sound alone": 1}


def test_an_output_without_records_has_a_report_too(tmp_path: Path) -> None:
    write_output(tmp_path)
    found = framefleet.report(str(tmp_path), price=2.0)
    assert (found.rows.done, found.rows.total, found.work.idle_share) == (0, None, None)
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize("num_rows", [1, 40, 60])
def test_a_clock_that_was_not_set_leaves_a_chart_of_every_row(num_rows: int) -> None:
    timeline = Timeline()
    timeline.add([946_684_800, *range(1_790_000_000, 1_790_000_000 + num_rows), 4_102_444_800])
    timeline.settle()
    assert len(timeline.bins()) <= MAX_BINS
    assert sum(one.rows for one in timeline.bins()) == num_rows + 2


@pytest.mark.parametrize("span_s", [0, 100, 5000, 700_000, 10**9])
def test_any_span_has_bins_that_fit_a_chart_and_hold_every_row(span_s: int) -> None:
    timeline = Timeline()
    moments = [1_700_000_000 + span_s * number // 500 for number in range(501)]
    for start in range(0, len(moments), 100):
        timeline.add(moments[start : start + 100])
    bins = timeline.bins()
    assert len(bins) <= MAX_BINS
    assert sum(one.rows for one in bins) == 501
    width = timedelta(seconds=timeline.width_s)
    assert all(later.start - one.start == width for one, later in pairwise(bins))


def test_the_page_has_one_rate_and_the_newest_clips(tmp_path: Path) -> None:
    prompts = [{"prompt": f"ball {number} <b>", "seed": number} for number in range(10)]
    folder = tmp_path / "out"
    write_gallery_output(folder, prompts)
    found = framefleet.report(str(folder))
    page = (folder / "report.html").read_text("utf-8")
    unit, rate = rate_unit(found.throughput.bin_s)[1], rounded(mean_rate(found.throughput))
    assert f"<b>{rate}</b><span>rows per {unit}</span>" in page
    assert f"Mean rows per {unit}, dashed: {rate}" in page
    assert page.count("data:image/webp;base64,") == 8
    assert "ball 9 &lt;b&gt;" in page and "ball 1 " not in page


@pytest.mark.parametrize(
    ("placement", "placed", "idle"),
    [
        ("components", "transformer; text_encoder, vae", [0.4, 0.8]),
        ("ulysses", "transformer, text_encoder, vae; transformer", [0.2, 0.4]),
        ("layers", "transformer; transformer, text_encoder, vae", [0.7, 0.5]),
    ],
)
def test_idle_time_is_counted_for_each_gpu_of_a_worker(
    placement: str, placed: str, idle: list[float], tmp_path: Path
) -> None:
    environment = json.dumps({"placement": placement, "placed": placed})
    store = write_output(tmp_path, [replace(one, environment=environment) for one in rows()])
    seconds = {"denoise": 60.0, "encode": 15.0, "decode": 5.0, "rows": 20.0, "load": 50.0}
    figures = {WORKER_SECONDS.key(cause): spent for cause, spent in seconds.items()}
    write_driver(store, progress=replace(UNDER_WAY, figures=figures))
    found = framefleet.report(str(tmp_path)).gpu_idle
    assert [*found] == [f"{number}: {names}" for number, names in enumerate(placed.split("; "))]
    assert [*found.values()] == pytest.approx(idle)


def test_without_the_extra_of_its_plugin_a_report_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_output(tmp_path, rows())
    for name in [name for name in sys.modules if name.startswith("framefleet.plugins.pages.report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert command("report", tmp_path, "--json").exit_code == 0
    refused = command("report", tmp_path)
    assert (refused.exit_code, "pip install 'framefleet[pages]'" in refused.stderr) == (2, True)
