"""Write a report as one self-contained HTML page, without scripts and network.

Text of records is escaped and shortened.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from framefleet.api.commands import duration
from framefleet.api.errors import bytes_text, count_text, escaped, rounded
from framefleet.api.texts import canonical_json
from framefleet.jobs.show.watch import VAGUE, share_text
from framefleet.pipeline.metrics import BUSY, LOAD, WORKER_SECONDS
from framefleet.plugins.pages.report import charts
from framefleet.plugins.pages.report.values import Report

_STYLE = Path(__file__).with_name("page.css")
_MAX_TEXT = 400  # characters of a cell
_FIRST_KEYS = ("gpu", "driver", "torch", "cuda", "diffusers", "transformers", "attention", "python")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page_of(report: Report, stills: Sequence[tuple[str, bytes]] = ()) -> str:
    """Return the page. stills: prompts and WebP pictures of the newest clips."""
    title = html_text(report.output.rstrip("/").rpartition("/")[2] or report.output)
    made = f"{report.made_at:%Y-%m-%d %H:%M} UTC, framefleet {html_text(report.framefleet)}"
    figures = "".join(
        f'<figure><img alt="" src="data:image/webp;base64,{b64encode(still).decode()}">'
        f"<figcaption>{html_text(prompt)}</figcaption></figure>"
        for prompt, still in stills
    )
    models = ", ".join(html_text(one.model) for one in report.models[:3]) or "no clips yet"
    body = [
        f"<header><h1>{title}</h1><p>{models}</p><p>{html_text(report.output)}</p></header>",
        fact_tiles(_headline(report), kind="tiles main"),
        fact_tiles(_facts(report)),
        f'<section><h2>Newest clips</h2><div class="clips">{figures}</div></section>' if stills else "",
        *_charts(report),
        *_tables(report),
        f"<footer>{made}. As JSON: report.json.</footer>",
    ]
    return html_page(f"{title}: report", body, policy=_POLICY)


def html_page(title: str, body: Iterable[str], *, policy: str, head: str = "") -> str:
    """Return a page in the style of reports. policy: what it may load."""
    text = "\n".join(body)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n{head}</head>\n"
        f"<body>\n<main>\n{text}\n</main>\n</body>\n</html>\n"
    )


def html_text(value: object) -> str:
    """Return a text for the page: without control characters, of a bounded length, escaped."""
    text = escaped(str(value)).encode("utf-8", "replace").decode()
    return escape(text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…")


def fact_tiles(facts: Iterable[tuple[str, str, bool]], *, kind: str = "tiles") -> str:
    """Return names with their values side by side, and whether each is bad."""
    tiles = [
        f'<div class="{"tile bad" if is_bad else "tile"}">'
        f"<b>{html_text(value)}</b><span>{html_text(name)}</span></div>"
        for name, value, is_bad in facts
    ]
    # As many columns as leave the last line the fullest, so that no tile is alone in it.
    columns = max((6, 5, 4), key=lambda count: ((len(tiles) - 1) % count + 1) / count)
    return f'<div class="{kind}" style="--columns: {columns}">{"".join(tiles)}</div>'


def _headline(report: Report) -> Iterator[tuple[str, str, bool]]:
    """Yield what most people look for, first of all."""
    rows, cost = report.rows, report.cost
    of = f", of {rows.total:,}" if rows.total and rows.total != rows.done else ""
    yield f"rows done{of}", f"{rows.done:,}", False
    yield "rows failed", f"{rows.failed:,}", rows.failed > 0
    if cost:
        unit = report.unit.removesuffix("s")
        with_others = "".join(f", with {name}" for name in cost.inner_gpu_hours)
        at = f", at a price of {cost.price_per_gpu_hour:g} per {unit}" if cost.price_per_gpu_hour else ""
        paid = f", {cost.paid:,.2f} of it paid to servers" if cost.paid else ""
        yield f"cost{at}{with_others}{paid}", f"{cost.total:,.2f}", False
        if cost.per_clip is not None:
            yield "cost per clip", rounded(cost.per_clip, 4), False
    yield report.unit + (cost.inner_text if cost else ""), rounded(report.all_gpu_hours), False
    if seconds := report.throughput.wall_s:
        yield "from first to last row", duration(seconds), False


def _facts(report: Report) -> Iterator[tuple[str, str, bool]]:
    rows, clips, work = report.rows, report.clips, report.work
    if rows.left:
        yield "rows left", f"{rows.left:,}", False
    if rows.former:
        yield "clips of rows no longer in the table", f"{rows.former:,}", False
    yield "invalid rows", f"{rows.invalid:,}", rows.invalid > 0
    if report.throughput.bins:
        _, per = charts.rate_unit(report.throughput.bin_s)
        yield f"rows per {per}", rounded(charts.mean_rate(report.throughput)), False
    yield "total length of clips", duration(clips.seconds), False
    yield "total size of clips", bytes_text(clips.num_bytes), False
    if clips.mean_batch:
        yield "mean batch size", f"{clips.mean_batch:.1f}", False
    if work.idle_share is not None:
        yield "idle time of models", f"{work.idle_share:.1%}", False
    for name, share in report.gpu_idle.items():
        yield f"idle time of GPU {name}", f"{share:.1%}", False
    if clips.peak_memory_bytes:
        yield "peak memory", bytes_text(clips.peak_memory_bytes), False
    if figures := report.audits.said:
        yield "rows rendered again, all equal", f"{figures.num_equal:,}", False
    if report.audits.wrong_share is not None and report.audits.wrong_share <= VAGUE:
        yield "rows that differ, at most (95 % confidence)", share_text(report.audits.wrong_share), False
    if gain := report.clip_yield:
        yield "of the time became accepted clips", f"{gain.accepted_share:.1%}", False
        if gain.cost_per_accepted is not None and gain.accepted:
            yield "cost per accepted clip", rounded(gain.cost_per_accepted, 4), False


def _charts(report: Report) -> Iterator[str]:
    rows, work, clips, pace = report.rows, report.work, report.clips, report.throughput
    yield '<div class="charts">'
    note = "The number of rows in the table is not known."
    if rows.total is not None:
        note = f"{count_text(rows.total, 'distinct, valid row')} in the table."
    by_state = {"done": rows.done, "failed": rows.failed, "invalid": rows.invalid, "left": rows.left}
    counts = [(name, count) for name, count in by_state.items() if count is not None]
    yield html_card("Rows by state", note, _counts_chart("Rows by state", counts, series=(0, 2, 3, 5)))
    if pace.bins:
        mean = f"Mean rows per {charts.rate_unit(pace.bin_s)[1]}, dashed: {rounded(charts.mean_rate(pace))}."
        note = f"{mean} Each column is {duration(pace.bin_s)} wide."
        yield html_card("Throughput", note, charts.throughput_chart(pace))
    if clips.batch_sizes:
        sizes = [(str(size), count) for size, count in clips.batch_sizes.items()]
        shown, more = sizes[: charts.MAX_BARS], sizes[charts.MAX_BARS :]
        shown += [("more", sum(count for _, count in more))] if more else []
        chart = _counts_chart("Rows by batch size", shown, series=[1] * len(shown))
        yield html_card("Batch sizes", "Rows by the mean size of their batches.", chart)
    if work.workers:
        note = "From a worker's first row on, without loading the model."
        if work.num_workers > charts.MAX_BARS:
            note += f" The {charts.MAX_BARS} busiest of {work.num_workers:,}."
        yield html_card("Time of workers", note, charts.workers_chart(work))
    yield from time_charts(report.spent)
    if gain := report.clip_yield:
        seconds, whole = list(gain.seconds.items()), sum(gain.seconds.values())
        numbers = [f"{spent / whole:.1%}" for _, spent in seconds]
        series = [1, *[2] * (len(seconds) - 1)]
        chart = charts.bars_chart(seconds, numbers, what="What became of the time", series=series)
        rule = f" Accepted: {gain.accepted}." if gain.accepted else ""
        text = gain.text()
        yield html_card("What became of the time", f"{text[0].upper()}{text[1:]}.{rule}", chart)
    if report.failures_by_type:
        types = list(report.failures_by_type.items())[: charts.MAX_BARS]
        chart = _counts_chart("Failures", types, series=[2] * len(types))
        yield html_card("Failures", "Rows by type of error.", chart)
    yield "</div>"


def _counts_chart(what: str, counts: Sequence[tuple[str, int]], *, series: Sequence[int]) -> str:
    """Return a bar for each name, and how many rows there are of it."""
    numbers = [f"{count:,}" for _, count in counts]
    return charts.bars_chart(counts, numbers, what=what, series=series[: len(counts)])


def time_charts(figures: Mapping[str, float]) -> Iterator[str]:
    """Yield what workers' time went to, by cause, if anything was counted."""
    spent = WORKER_SECONDS.by_label(figures)
    if whole := sum(spent.values()):  # a driver that was killed early has counted none
        shown = list(spent.items())[: charts.MAX_BARS]
        numbers = [f"{seconds / whole:.1%}" for _, seconds in shown]
        series = [0 if cause in BUSY else 5 if cause == LOAD else 2 for cause, _ in shown]
        note = f"{duration(whole)} of all workers. Blue: the model computes; red: it waits; grey: loading."
        chart = charts.bars_chart(shown, numbers, what="Time", series=series)
        yield html_card("Where the time goes", note, chart)


def html_card(title: str, note: str, svg: str) -> str:
    return f"<section><h2>{title}</h2><p>{html_text(note)}</p>{svg}</section>"


def _tables(report: Report) -> Iterator[str]:
    yield html_table("Notes", "", ("",), [(line,) for line in report.notes])
    if report.failures:
        rows = [
            (
                f"{one.rows:,}",
                one.row.error_type,
                one.row.message,
                one.row.fix,
                f"{one.row.positions[0]:,}" if one.row.positions else one.row.row_id,
            )
            for one in report.failures
        ]
        note = "By message. List every row with framefleet failures, render them again with framefleet retry."
        yield html_table("Rows that failed", note, ("rows", "error", "message", "fix", "example row"), rows)
    shapes = [(shape, f"{count:,}") for shape, count in list(report.clips.shapes.items())[: charts.MAX_BARS]]
    yield html_table("Shapes", "Frames x height x width.", ("shape", "rows"), shapes)
    models = [
        (
            f"{one.name}: {one.model}" if one.name else one.model,
            *(one.license, one.digest, f"{one.rows:,}", rounded(one.busy_s / one.rows)),
        )
        for one in report.models
    ]
    names = ("model", "license", "digest", "rows", "s a row")
    yield html_table("Model", "The digest covers all files that were loaded.", names, models)
    for place in report.environments:
        values = {
            str(key): value if isinstance(value, str) else canonical_json(value)
            for key, value in place.values.items()
        }
        first = [key for key in _FIRST_KEYS if key in values]
        cells = [(key, values[key]) for key in [*first, *sorted(values.keys() - set(first))][:60]]
        yield html_table("Environment", f"{count_text(place.rows, 'row')}.", ("name", "value"), cells)


def html_table(title: str, note: str, names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{html_text(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{html_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    table = f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'
    return f'<section class="wide"><h2>{title}</h2><p>{html_text(note)}</p>{table}</section>'
