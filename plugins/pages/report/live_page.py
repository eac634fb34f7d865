"""Serve a page that follows the status of an output, with its newest clips, in the style of reports."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from framefleet.api.commands import duration
from framefleet.api.errors import JobError, bytes_text, command, count_text, rounded
from framefleet.api.outputs import RECORDS, Output, Store, preview_path, recorded_path, told_arguments
from framefleet.cluster.driver.progress import num_rendering
from framefleet.pipeline import metrics
from framefleet.pipeline.outputs.layout import CLIPS, PREVIEWS
from framefleet.pipeline.outputs.media.media_settings import SOUNDS
from framefleet.plugins.pages.page_server import MEDIA_TYPES, OutputHandler, PageServer
from framefleet.plugins.pages.report import page
from framefleet.plugins.pages.report.charts import MAX_BARS, bars_chart
from framefleet.plugins.watch.status import Status, StatusReader

_PAGE = "status.html"
_SCRIPT = Path(__file__).with_name("live.js")
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; media-src 'self'; "
    "script-src 'self'; connect-src 'self'"
)
_TYPES = {CLIPS: MEDIA_TYPES, PREVIEWS: MEDIA_TYPES}
_MAX_CLIPS = 8
_MAX_WORKERS = 60
_NEW_PARTS = 4  # of records: each has five seconds of a run or more, or is merged from many
_SILENT_S = 30.0  # from when on an output is called silent: requests are repeated for some seconds anyway


class StatusServer(PageServer):
    """Serves the page of an output until it is closed. url: of the page. every_s: how often it is read anew.

    port: 0 takes a free one. Raises JobError where it is taken.
    """

    def __init__(self, output: Output, *, port: int = 0, every_s: float = 5.0) -> None:
        self._output, self._reader, self._every_s = output, StatusReader(output), every_s
        self._lock = threading.Lock()  # of the two below
        self._read_at, self._text = float("-inf"), ""
        super().__init__(_Handler, _PAGE, output.store, port=port, page_text=self._page_text)

    def _page_text(self) -> str:
        """Return the page as it was read last, for all who look."""
        with self._lock:
            if time.monotonic() - self._read_at >= self._every_s / 2:
                status = self._reader.status()
                clips = newest_clips(self._output.store, _MAX_CLIPS)
                self._text, self._read_at = live_page(status, clips, every_s=self._every_s), time.monotonic()
            return self._text


class _Handler(OutputHandler):
    types = _TYPES
    policy = _POLICY
    page_text: Callable[[], str]

    def made(self, path: str) -> tuple[bytes, str] | None:
        if path == "live.js":
            return _SCRIPT.read_bytes(), "text/javascript"
        if path == _PAGE:
            return self.page_text().encode(), "text/html; charset=utf-8"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewClip:
    """A clip that was finished lately. path: in the output."""

    row_id: str
    prompt: str
    path: str


def newest_clips(store: Store, count: int) -> list[NewClip]:
    """Return the clips that were finished last, of those in the newest parts; the newest first."""
    names = ["finished_at", "row_id", "uri", "path", "arguments"]
    tables = list(Output(store).newest(_NEW_PARTS).records(names))
    if not tables:
        return []
    rows = pa.concat_tables(tables).sort_by([("finished_at", "descending")]).slice(0, count)
    clips = []
    for row in rows.drop_columns(["finished_at"]).to_pylist():
        with suppress(JobError):  # not ours
            prompt = str(told_arguments(row).get("prompt", row["row_id"]))
            clips.append(NewClip(row_id=row["row_id"], prompt=prompt, path=recorded_path(row, RECORDS)))
    return clips


def live_page(status: Status, clips: Sequence[NewClip], *, every_s: float) -> str:
    """Return the page. Its parts have names, by which the script of a page that is open takes new ones."""
    title = page.html_text(status.output.rstrip("/").rpartition("/")[2] or status.output)
    figures = "".join(
        f'<figure id="{page.html_text(clip.row_id)}">{_player(clip)}<figcaption>{page.html_text(clip.prompt)}'
        "</figcaption></figure>"
        for clip in clips
    )
    newest = f'<section><h2>Newest clips</h2><div class="clips">{figures}</div></section>' if clips else ""
    parts = {"head": _head(status, title), "rows": "".join(_rows(status)), "clips": newest}
    inner = {
        name: f"<h2>{page.html_text(name.capitalize())}</h2>{''.join(_rows(one))}"
        for name, one in status.inner.items()
    }
    parts = inner | parts | {"charts": f'<div class="charts">{"".join(_charts(status))}</div>'}
    failures = [
        (row.error_type, row.message, row.fix, command("logs", status.output, row.row_id))
        for row in status.last_failures
    ]
    columns = ["error", "message", "fix", "what happened to the row"]
    parts["failures"] = page.html_table("Last failures", "The newest first.", columns, failures)
    workers = [
        (worker.name, worker.state, worker.node, f"{worker.rows_in_hand:,}", f"{worker.rows_done:,}")
        for worker in status.workers[:_MAX_WORKERS]
    ]
    is_cut = len(status.workers) > len(workers)
    note = f"The first {_MAX_WORKERS}, of {len(status.workers):,}." if is_cut else ""
    columns = ["worker", "state", "machine", "rows in hand", "rows done"]
    parts["workers"] = page.html_table("Workers", note, columns, workers)
    body = [f'<div id="part-{name}">{html}</div>' for name, html in parts.items()]
    head = f'<script src="live.js" data-every="{every_s:g}" defer></script>\n'
    return page.html_page(f"{title}: status", body, policy=_POLICY, head=head)


def _head(status: Status, title: str) -> str:
    paused = f" paused since {status.paused_since}" if status.paused_since else ""
    driver = status.driver
    if driver.state in ("none", "unknown"):
        about = (status.output, f"no driver yet{paused}")
    else:
        heard = "" if driver.told_s is None else f", heard {duration(driver.told_s)} ago"
        place = f"pid {driver.pid} on {driver.host} since {driver.started_at}"
        about = (status.output, f"driver {driver.state}: {place}{heard}{paused}")
    lost = '<p id="lost" class="bad" hidden>The server does not answer: this is what it said last.</p>'
    lines = "".join(f"<p>{page.html_text(text)}</p>" for text in about)
    return f"<header><h1>{title}</h1>{lines}{lost}</header>"


def _rows(status: Status) -> Iterator[str]:
    whole = status.num_rows or status.num_done + status.num_failed
    if whole:
        parts = (("done", status.num_done), ("failed", status.num_failed))
        bars = "".join(f'<i class="{name}" style="width: {100 * n / whole:.2f}%"></i>' for name, n in parts)
        label = f"{status.num_done} of {count_text(whole, 'row')}"
        yield f'<div class="progress" role="img" aria-label="{label}">{bars}</div>'
    yield page.fact_tiles(_facts(status))


def _facts(status: Status) -> Iterator[tuple[str, str, bool]]:
    figures = status.figures
    of = f", of {status.num_rows:,}" if status.num_rows is not None else ""
    yield f"rows done{of}", f"{status.num_done:,}", False
    if status.num_left is not None:
        yield "rows left", f"{status.num_left:,}", False
    yield "rows failed", f"{status.num_failed:,}", status.num_failed > 0
    if status.rows_per_s is not None:
        yield "rows per minute", rounded(60 * status.rows_per_s), False
    if status.eta_s is not None:
        yield "left", duration(status.eta_s), False
    if status.workers:
        yield "workers rendering", num_rendering(status.workers), False
    if shares := metrics.idle_shares(figures):
        yield "idle time of models", f"{sum(shares.values()):.1%}", False
    if size := metrics.CLIP_BYTES.of(figures):
        yield "clips of this run", bytes_text(size), False
    if retries := metrics.ROW_RETRIES.of(figures):
        yield "repeated attempts", f"{retries:,.0f}", True
    if blocked := metrics.BLOCKED_PLACES.of(figures):
        yield "blocked machines, workers", f"{blocked:,.0f}", True
    if (silent_s := metrics.STORE_SILENT_SECONDS.of(figures)) > _SILENT_S:
        yield "since the output answered", duration(silent_s), True
    if metrics.SPENT_MONEY.name in figures:
        yield "spent", f"{metrics.SPENT_MONEY.of(figures):,.2f}", False


def _charts(status: Status) -> Iterator[str]:
    yield from page.time_charts(status.figures)
    if failed := list(metrics.FAILED_BY_TYPE.by_label(status.figures).items())[:MAX_BARS]:
        numbers = [f"{count:,.0f}" for _, count in failed]
        chart = bars_chart(failed, numbers, what="Failures", series=[2] * len(failed))
        yield page.html_card("Failures", "Rows of this run by type of error.", chart)
    if status.workers:
        done, here = Counter[str](), Counter[str]()
        for worker in status.workers:
            done[worker.node] += worker.rows_done
            here[worker.node] += worker.state in ("rendering", "idle")
        rows = [(name, f"{here[name]:,}", f"{count:,}") for name, count in done.most_common(MAX_BARS)]
        yield page.html_table("Machines", "Those with most rows.", ("machine", "workers", "rows done"), rows)


def _player(clip: NewClip) -> str:
    path = page.html_text(clip.path)
    if clip.path.endswith((".mp4", ".webm")):
        return f'<video src="{path}" muted autoplay loop playsinline></video>'
    if clip.path.endswith(SOUNDS):
        return f'<audio src="{path}" controls></audio>'
    is_shown = clip.path.endswith((".webp", ".gif", ".png"))
    return f'<img alt="" src="{path if is_shown else page.html_text(preview_path(clip.path))}">'
