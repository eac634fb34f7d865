"""What an output cost and how it went: on one page, in a JSON, and on a page that follows a job."""

from __future__ import annotations

import html
import json
import os
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import framefleet
from framefleet import JobError, Output, StatusServer, Store
from framefleet.cluster.driver.epoch_lock import HELD
from framefleet.pipeline.metrics import (
    CLIP_BYTES,
    JOB_ROWS,
    METRICS,
    ROW_OUTCOMES,
    SPENT_MONEY,
    STORE_RETRIES,
    Counts,
    added,
    of_runs,
)
from framefleet.plugins.pages.report.live_page import newest_clips
from tests.commands import command
from tests.gallery_output import write_output as write_gallery_output
from tests.jobs import ROOT
from tests.outputs import UNDER_WAY, write_driver, write_output
from tests.rows import NOON, failure, record
from tests.small_output import rendered
from tests.unit.test_gallery_server import ask

HOSTILE = "\x1b[31m</style><script>alert(1)</script><img src=x onerror=alert(2)>$\\frac{a}{b}$\ud7ff"


def lost(digit: str) -> Any:
    """Return the failure of a row that has no record."""
    return failure(row_id=digit * 32)


def rows(count: int = 6) -> list[Any]:
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


def tags_and_texts(page: str) -> tuple[set[str], set[str]]:
    """Return the names of a page's tags, and the texts between them."""
    return {*re.findall(r"<(\w+)", page)}, {html.unescape(text) for text in re.split(r"<[^>]*>", page)}


def test_records_are_summed_by_state_worker_and_cause(tmp_path: Path) -> None:
    store = write_output(tmp_path, rows(), [lost("e"), lost("f")], num_invalid=1)
    write_driver(store, ended=True)
    found = framefleet.report(str(tmp_path), write=False)
    assert (found.rows.total, found.rows.done, found.rows.failed, found.rows.left) == (12, 6, 2, 4)
    assert found.rows.invalid == 1
    assert (found.clips.num_bytes, found.clips.seconds, found.clips.mean_batch) == (6000, 12.0, 2.0)
    assert found.clips.batch_sizes == {2: 6}
    workers = [(one.name, one.rows, one.idle_s) for one in found.work.workers]
    assert workers == [("worker-0", 3, 3.0), ("worker-1", 3, 3.0)]
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
        (["report", "--serve", "--price", "0"], "--price 0.0 has no effect with --serve"),
        (["report", "--serve", "--accepted", "true"], "--accepted true has no effect with --serve"),
        (["report", "--serve", "--json"], "--json has no effect with --serve"),
        (["report", "--port", "8811"], "--port 8811 has no effect without --serve"),
        (["report", "--every", "2"], "--every 2.0 has no effect without --serve"),
        (["gallery", "--port", "8811"], "--port 8811 has no effect without --serve"),
    ],
)
def test_an_option_without_effect_is_refused(tmp_path: Path, words: list[str], problem: str) -> None:
    write_output(tmp_path, rows())
    assert problem in command(words[0], tmp_path, *words[1:], exits=2).stderr
    assert not {"report.html", "gallery"} & {*os.listdir(tmp_path)}


def test_both_files_are_written_and_json_can_be_printed_instead(tmp_path: Path) -> None:
    write_output(tmp_path, rows())
    assert json.loads(command("report", tmp_path, "--json").stdout)["rows"]["done"] == 6
    assert not (tmp_path / "report.html").exists()
    ended = command("report", tmp_path, "--price", "2.5", exits=0)
    assert str(tmp_path / "report.html") in ended.stdout.replace("\n", "")
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["cost"]["price_per_gpu_hour"] == 2.5
    assert datetime.fromisoformat(told["throughput"]["finished"]) == NOON + timedelta(seconds=60)


def test_the_page_asks_no_network_and_shows_its_numbers_as_text(tmp_path: Path) -> None:
    write_output(tmp_path, rows(), [lost("f")])
    framefleet.report(str(tmp_path), price=2.5)
    tags, texts = tags_and_texts(page := (tmp_path / "report.html").read_text())
    assert not {"script", "img", "link", "iframe", "object"} & tags
    assert " src=" not in page and " aria-label=" in page
    titles = {"Rows by state", "Throughput", "Batch sizes", "Time of workers", "Failures", "Environment"}
    assert titles <= texts
    assert {"0:32, idle 10.0%", "ValueError", "worker-0"} & texts


def test_a_page_is_small_and_names_who_has_no_name(tmp_path: Path) -> None:
    adopted = record(7, worker="", compute_s=3.0, idle_s=1.0)
    store = write_output(tmp_path, [*rows(), adopted], [lost("f")], job={"fleet": {"gpus_per_worker": 0}})
    write_driver(store, ended=True)
    framefleet.report(str(tmp_path), price=36.0)
    page = (tmp_path / "report.html").read_text()
    assert len(page) < 60_000
    assert {"adopted", "cost, at a price of 36 per worker hour"} <= tags_and_texts(page)[1]


def test_what_all_runs_paid_to_servers_is_part_of_the_cost(tmp_path: Path) -> None:
    store = write_output(tmp_path, rows())
    write_driver(store, ended=True)
    store.write("engine/paid-1.json", b'{"cost": 5.0}')
    store.write("drafts/engine/paid-2.json", b'{"cost": 0.27}')
    without = framefleet.report(str(tmp_path), price=36.0, write=False).cost
    assert framefleet.report(str(tmp_path)).overview()["paid to servers"] == "5.27"
    assert {"cost, 5.27 of it paid to servers", "5.27"} <= tags_and_texts(
        (tmp_path / "report.html").read_text()
    )[1]
    assert without is not None and without.total == 5.27 + without.gpu_hours * 36
    assert without.per_clip == without.total / len(rows())


def test_what_records_say_is_no_html_no_formula_and_no_control(tmp_path: Path) -> None:
    names = dict.fromkeys(("worker", "node", "model"), HOSTILE)
    bad = record(1, **names, environment=json.dumps({HOSTILE: HOSTILE}), idle_causes="7")
    causes = record(2, idle_s=1.0, idle_causes=json.dumps({HOSTILE: 1.0}), environment="[" * 10_000)
    failed = failure(error_type=HOSTILE, message=HOSTILE * 1000)
    write_output(tmp_path, [bad, causes], [failed])
    framefleet.report(str(tmp_path))
    page = (tmp_path / "report.html").read_text()
    assert not {"script", "img"} & tags_and_texts(page)[0]
    assert "\x1b" not in page and len(page) < 1_000_000


def test_numbers_that_cannot_be_are_not_summed(tmp_path: Path) -> None:
    start, end = (moment.replace(tzinfo=NOON.tzinfo) for moment in (datetime.min, datetime.max))
    seconds = {"denoise_s": float("nan"), "idle_s": float("inf"), "decode_s": -1e300}
    sizes = {"batch_size": float("inf"), "bytes": -5, **dict.fromkeys(("duration_s", "height", "num_frames"))}
    write_output(tmp_path, [record(1, started_at=start, finished_at=end, **seconds, **sizes)])
    found = framefleet.report(str(tmp_path), price=1.0, write=False)
    assert (found.work.busy_s, found.work.idle_s, found.clips.num_bytes) == (0.0, 0.0, 0)
    assert found.throughput.bins == ()
    assert found.clips.shapes == {"sound alone": 1}


def test_an_output_without_records_has_a_report_too(tmp_path: Path) -> None:
    write_output(tmp_path)
    found = framefleet.report(str(tmp_path), price=2.0)
    assert (found.rows.done, found.rows.total, found.work.idle_share) == (0, None, None)
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize("span_s", [0, 100, 5000, 700_000, 10**9])
@pytest.mark.parametrize("others", [[], [946_684_800, 4_102_444_799]], ids=["", "of clocks that are not set"])
def test_any_span_has_bins_that_hold_every_row(span_s: int, others: list[int], tmp_path: Path) -> None:
    moments = [*others, *(1_700_000_000 + span_s * number // 60 for number in range(61))]
    times = [datetime.fromtimestamp(moment, UTC) for moment in moments]
    write_output(tmp_path, [record(at, finished_at=time, started_at=time) for at, time in enumerate(times)])
    throughput = framefleet.report(str(tmp_path), write=False).throughput
    assert len(throughput.bins) <= 120, "columns of three points each"
    assert sum(one.rows for one in throughput.bins) == len(moments)
    width = timedelta(seconds=throughput.bin_s)
    assert all(later.start - one.start == width for one, later in pairwise(throughput.bins))


def test_the_page_has_one_rate_and_the_newest_clips(tmp_path: Path) -> None:
    prompts = [{"prompt": f"ball {number} <b>", "seed": number} for number in range(10)]
    folder = tmp_path / "out"
    write_gallery_output(folder, prompts)
    framefleet.report(str(folder))
    page = (folder / "report.html").read_text("utf-8")
    [(rate, unit)] = re.findall("<b>([^<]+)</b><span>(rows per [^<]+)</span>", page)
    assert float(rate) > 0 and f"Mean {unit}, dashed: {rate}" in page
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
def test_each_gpu_has_its_idle_time(placement: str, placed: str, idle: list[float], tmp_path: Path) -> None:
    environment = json.dumps({"placement": placement, "placed": placed})
    store = write_output(tmp_path, [replace(one, environment=environment) for one in rows()])
    seconds = {"denoise": 60.0, "encode": 15.0, "decode": 5.0, "rows": 20.0, "load": 50.0}
    figures = {f"worker_seconds/{cause}": spent for cause, spent in seconds.items()}
    write_driver(store, progress=replace(UNDER_WAY, figures=figures))
    found = framefleet.report(str(tmp_path)).gpu_idle
    assert [*found] == [f"{number}: {names}" for number, names in enumerate(placed.split("; "))]
    assert [*found.values()] == pytest.approx(idle)


def test_without_its_extra_a_report_says_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_output(tmp_path, rows())
    for name in [name for name in sys.modules if name.startswith("framefleet.plugins.pages.report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert command("report", tmp_path, "--json").exit_code == 0
    assert "pip install 'framefleet[pages]'" in command("report", tmp_path, exits=2).stderr


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


FIRST = {"worker_seconds/denoise": 300.0, "worker_seconds/decode": 60.0, "worker_seconds/load": 40.0}
SECOND = {"worker_seconds/denoise": 100.0, "worker_seconds/audit": 60.0, "worker_seconds/rows": 40.0}
DRAFTS = {"worker_seconds/denoise": 200.0, "worker_seconds/rows": 100.0}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Four clips of 100 s, of 520 s in which models computed, of 600 s in two runs; 300 s of drafts."""
    rows = [record(number, compute_s=100.0, fps=float(number)) for number in range(1, 5)]
    store = write_output(tmp_path, rows, job={"draft": {}})
    for epoch, figures in enumerate((FIRST, SECOND), start=1):
        write_driver(store, epoch, progress=replace(UNDER_WAY, figures=figures), ended=True)
    write_driver(store.below("drafts"), progress=replace(UNDER_WAY, figures=DRAFTS), ended=True)
    lines = [{"row_id": row.row_id, "stars": stars} for row, stars in zip(rows, (5, 1), strict=False)]
    store.write("stars.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines).encode())
    return tmp_path


@pytest.mark.parametrize(
    ("accepted", "num_accepted"), [(None, 4), ("fps > 1", 3), ("stars >= 3", 1), ("stars >= 3 OR fps = 4", 2)]
)
def test_all_time_is_shared_out_by_what_became_of_it(
    output: Path, accepted: str | None, num_accepted: int
) -> None:
    found = framefleet.report(str(output), price=36.0, accepted=accepted, write=False).clip_yield
    assert found is not None and (found.num_clips, found.num_accepted) == (4, num_accepted)
    parts = {"accepted clips": 100.0 * num_accepted, "other clips": 400.0 - 100.0 * num_accepted}
    parts |= {"drafts": 300.0, "failed or repeated": 120.0, "loading": 40.0, "waiting": 40.0}
    assert found.seconds == {name: seconds for name, seconds in parts.items() if seconds}
    assert found.accepted_share == pytest.approx(num_accepted / 9)
    assert found.networks_share == pytest.approx(660 / 900)
    assert found.cost_per_accepted == pytest.approx(9.0 / num_accepted)


def test_what_is_printed_names_the_share_and_the_price_of_each(output: Path) -> None:
    shown = command("report", output, "--price", "36", "--accepted", "stars >= 3").stdout.splitlines()
    clips = "11% made accepted clips (1 of 4 clips; 9 for each), other clips 33%, "
    rest = "drafts 33%, failed or repeated 13%, loading 4%, waiting 4%"
    line = f"yield: of the workers' time, networks computed for 73%; {clips}{rest}"
    assert shown[:2] == ["cost: 9.00 (worker hours: 0.25, of which drafts 0.0833, x 36)", line]
    values = json.loads((output / "report.json").read_text())
    assert values["clip_yield"]["accepted_share"] == pytest.approx(1 / 9)
    assert values["spent"]["worker_seconds/denoise"] == 400
    page = (output / "report.html").read_text()
    assert "What became of the time" in page and "stars &gt;= 3" in page and "Where the time goes" in page
    assert "<b>0.25</b><span>worker hours, of which drafts 0.0833<" in page
    overview = framefleet.report(str(output), price=36.0, write=False).overview()
    assert overview["time"] == "0.25 worker hours, of which drafts 0.0833"


def test_what_no_driver_counted_is_not_said(tmp_path: Path) -> None:
    store = write_output(tmp_path, [record(1, compute_s=3.0)])
    write_driver(store, progress=replace(UNDER_WAY, figures={"worker_seconds/denoise": -9.0}), ended=True)
    found = framefleet.report(str(tmp_path))
    assert (found.clip_yield, found.spent) == (None, {})
    assert "became" not in (tmp_path / "report.html").read_text()


def test_a_condition_on_no_column_is_refused_and_one_that_no_clip_meets_pointed_out(output: Path) -> None:
    with pytest.raises(JobError, match="start"):
        framefleet.report(str(output), accepted="start >= 3", write=False)
    assert "note: no clip meets 'fps > 99'" in command("report", output, "--accepted", "fps > 99").stderr
    assert "gallery --serve" in command("report", output, "--accepted", "stars > 99").stderr


def test_the_page_lists_every_metric_as_it_is_declared() -> None:
    lines = (ROOT / "docs/report.md").read_text().splitlines()
    found = [line for line in lines if line.startswith("| `framefleet_")]
    assert found == [
        f"| `framefleet_{metric.name}{'_total' if metric.is_total else ''}` | "
        f"{f'`{metric.label}` ' if metric.label else ''}| {metric.help} |"
        for metric in METRICS.values()
    ]


def test_figures_of_several_add_up() -> None:
    several = [Counts(), Counts()]
    for number, counts in enumerate(several):
        counts.add(ROW_OUTCOMES, label="done")
        counts.add(ROW_OUTCOMES, number, label="failed")
        counts.add(STORE_RETRIES, 2)
    figures = added(*(counts.figures() for counts in several))
    assert figures == {"rows/done": 2, "rows/failed": 1, "store_retries": 4}
    assert ROW_OUTCOMES.by_label(figures) == {"done": 2, "failed": 1}
    assert (ROW_OUTCOMES.total(figures), STORE_RETRIES.total(figures)) == (3, 4)


def test_what_holds_at_a_moment_does_not_add_up_over_runs() -> None:
    own = {ROW_OUTCOMES.key("done"): 2.0, CLIP_BYTES.key(): 10.0}
    runs = [
        own | {JOB_ROWS.key("done"): 2.0, JOB_ROWS.key("leased"): 1.0, SPENT_MONEY.key(): 3.0},
        own | {JOB_ROWS.key("done"): 4.0, SPENT_MONEY.key(): 5.0},
    ]
    together = {"rows/done": 4.0, "clip_bytes": 20.0, "job_rows/done": 4.0, "spent_money": 5.0}
    assert of_runs(*runs) == together
    assert (of_runs(runs[1]), of_runs()) == (runs[1], {})
