"""`make bench`: every way of rendering one table, side by side, what the driver can dispatch and check.

Prints figures and never judges them: a shared machine can halve any of them. With `--short` the figures mean
nothing; it shows that every way still runs.

    python -m tools.benchmarks.bench                               # all of it, to the terminal
    python -m tools.benchmarks.bench --only uniform                # one table, as Markdown
    python -m tools.benchmarks.bench --write-docs [NAME ...]       # tables of README and docs, measured anew
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from rich import box
from rich.console import Console
from rich.table import Table

from framefleet import load_model
from framefleet.pipeline.model.place_trial import prove_place
from tools.benchmarks import large, pixels, start
from tools.benchmarks.ceiling import measure_ceiling
from tools.benchmarks.checks import HEADINGS as CHECKED, measure_checks
from tools.benchmarks.dispatch import measure_dispatch
from tools.benchmarks.fleet import render_fleet
from tools.benchmarks.outcome import Outcome, measure
from tools.benchmarks.plain import render_plain
from tools.benchmarks.probes import probes_table
from tools.benchmarks.ray_data import render_ray_data
from tools.benchmarks.results import tables
from tools.benchmarks.table import build_model, mixed_rows, uniform_rows, write_table
from tools.benchmarks.written import TABLES, write_docs

ONLY = ("mixed", "uniform", "dispatch")
_WRITE_DOCS = f"measure anew and write these tables of README and docs, or all: {', '.join(TABLES)}"
HEADINGS = ("rows/s", "x plain", "of ceiling", "rows a forward", "equal bits", "wall s")
SETTINGS = {
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "RAY_worker_niceness": "0",  # else Ray's workers yield to any other process, unlike the plain loop
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of it. steps: of every row, in place of its own."""

    tables: Sequence[str] = ("mixed", "uniform")
    rows: int | None = None
    steps: int | None = None
    workers: int = 2
    hand_batches: Sequence[int] = (2, 4, 8, 16)
    modes: Sequence[str] = ("exact", "fast")
    probed_rows: int = 8
    dispatch_rows: Sequence[int] = (50_000, 100_000)
    checked_rows: int = 1_000_000
    clips: pixels.Clips = pixels.FULL
    has_start: bool = True

    def table(self, name: str) -> list[dict[str, Any]]:
        rows = (mixed_rows() if name == "mixed" else uniform_rows())[: self.rows]
        return [row | {"num_inference_steps": self.steps or row["num_inference_steps"]} for row in rows]


FULL = Scale()
SHORT = Scale(
    tables=["uniform"],
    rows=4,
    steps=2,
    workers=1,
    hand_batches=[2],
    modes=["exact"],
    dispatch_rows=[200],
    checked_rows=200,
    probed_rows=2,
    clips=pixels.SHORT,
    has_start=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One table to render in every way."""

    name: str
    table: Path
    num_rows: int
    model: Path
    folder: Path
    scale: Scale

    def run(self, way: str, render: Any, *, after: str | None = None, **options: Any) -> Outcome:
        """after: the way that it may remember from; none, and nothing is remembered."""
        say(f"{self.name}: {way}")
        os.environ["FRAMEFLEET_CACHE"] = str(self.folder / f"cache-{after or way}")
        return measure(
            render,
            self.table,
            self.model,
            self.folder / way.replace(" ", "-"),
            workers=self.scale.workers,
            **options,
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.bench", description=__doc__)
    parser.add_argument(
        "--short", action="store_true", help="a few rows of one table; its figures mean nothing"
    )
    parser.add_argument("--only", choices=ONLY, help="print this table alone, as Markdown")
    parser.add_argument("--write-docs", nargs="*", metavar="NAME", help=_WRITE_DOCS)
    options = parser.parse_args()
    if options.write_docs is not None:
        return write_docs(options.write_docs, is_short=options.short)
    scale = SHORT if options.short else FULL
    # Each in a new process, with all that it imports; where figures mean nothing, with what this one has.
    multiprocessing.set_start_method("fork" if scale is SHORT else "spawn")
    os.environ.update(SETTINGS)
    prove_place("cpu", ["bf16"])  # before anything computes, for all processes
    if options.only:
        with tempfile.TemporaryDirectory(prefix="framefleet-bench-") as scratch:
            folder = Path(scratch)
            return print(as_markdown(_one_table(options.only, build_model(folder / "model"), folder, scale)))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before: other work makes all below vary"
    )
    with tempfile.TemporaryDirectory(prefix="framefleet-bench-") as scratch:
        folder = Path(scratch)
        model = build_model(folder / "model")
        for name in scale.tables:
            console.print(_one_table(name, model, folder, scale))
        if scale.has_start:
            console.print(_start_table())
        console.print(_dispatch_table(model, folder, scale))
        console.print(_checks_table(model, folder, scale))
        say("probes")
        console.print(probes_table(load_model(model, dtype="fp32"), rows=scale.probed_rows))
        say("pixels")
        print(tables(pixels.figures(scale.clips, model, folder / "pixels")))
    say("large network")
    large.print_large(large.SHORT if scale is SHORT else large.FULL)


def _one_table(name: str, model: Path, folder: Path, scale: Scale) -> Table:
    """Measure one of `ONLY`."""
    if name == "dispatch":
        return _dispatch_table(model, folder, scale)
    rows = scale.table(name)
    table = write_table(rows, folder / f"{name}.parquet")
    case = Case(name=name, table=table, num_rows=len(rows), model=model, folder=folder / name, scale=scale)
    return _compare(case, by_hand=name == "uniform")


def as_markdown(table: Table) -> str:
    """Return a table as Markdown, without its title."""
    table.box, table.title, table.caption = box.MARKDOWN, None, None
    for row in table.rows:
        row.end_section = False
    console = Console(width=1000, color_system=None, file=io.StringIO())
    console.print(table)
    return "".join(f"{line.strip()}\n" for line in console.file.getvalue().splitlines() if line.strip())  # type: ignore[attr-defined]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _compare(case: Case, *, by_hand: bool) -> Table:
    plain = case.run("plain loop", render_plain)
    ways: dict[str, Outcome] = {"plain diffusers loop": plain}
    batch = 1
    if by_hand:
        tried = {
            n: case.run(f"diffusers batch {n}", render_plain, batch=n) for n in case.scale.hand_batches
        } | {1: plain}
        batch = max(tried, key=lambda n: tried[n].rows_per_s)
        rates = ", ".join(f"{n}: {tried[n].rows_per_s:.2f}" for n in sorted(tried))
        ways[f"diffusers, best batch {batch} ({rates})"] = tried[batch]
    label = f"Ray Data map_batches, batch {batch}"
    ways[label] = case.run("ray data", render_ray_data, rows=case.num_rows, batch=batch)
    for mode in case.scale.modes:
        way = f"framefleet {mode}"
        ways[way] = case.run(way, render_fleet, mode=mode)
        ways[f"{way}, remembering that"] = case.run(f"{way} again", render_fleet, after=way, mode=mode)
    return _figures(case, ways)


def _figures(case: Case, ways: Mapping[str, Outcome]) -> Table:
    plain = ways["plain diffusers loop"]
    say(f"{case.name}: ceiling")
    ceiling = measure_ceiling(case.table, case.model, workers=case.scale.workers, mode="exact")
    share = pc.sum(plain.records["denoise_s"]).as_py() / pc.sum(plain.records["total_s"]).as_py()
    table = Table(
        title=f"{case.name} table: {case.num_rows} rows, {case.scale.workers} workers of one thread; "
        f"denoising is {share:.0%} of the plain loop",
        caption="rows/s: from a worker's first row to the last record; wall s: with all that starts before",
    )
    table.add_column("way")
    for heading in HEADINGS:
        table.add_column(heading, justify="right")

    def rates(rows_per_s: float) -> list[str]:
        return [
            f"{rows_per_s:.2f}",
            f"{rows_per_s / plain.rows_per_s:.2f}",
            f"{rows_per_s / ceiling.bare:.0%}",
        ]

    for way, outcome in ways.items():
        equal = sum(outcome.digests.get(row) == digest for row, digest in plain.digests.items())
        bits = f"{equal} of {len(plain.digests)}"
        table.add_row(
            way, *rates(outcome.rows_per_s), f"{outcome.mean_batch:.1f}", bits, f"{outcome.wall_s:.0f}"
        )
    table.add_section()
    table.add_row("exact Renderer alone, first time", *rates(ceiling.first))
    table.add_row("exact Renderer alone, sizes known", *rates(ceiling.again))
    table.add_row("ceiling: its forwards and decodes alone", *rates(ceiling.bare))
    return table


def _start_table() -> Table:
    table = Table(title="from a command to its end: one row of the demo, the fastest of some rounds")
    for heading in start.HEADINGS:
        table.add_column(heading)
    say("start")
    for cells in start.measure_start():
        table.add_row(*cells)
    return table


def _dispatch_table(model: Path, folder: Path, scale: Scale) -> Table:
    table = Table(
        title=f"dispatch without rendering, {scale.workers} workers",
        caption="the driver's memory as the first worker is ready, at half of the rows, at the end",
    )
    for heading in ("rows", "rows/s", "checked rows/s", "MiB at start", "half", "end"):
        table.add_column(heading, justify="right")
    for rows in scale.dispatch_rows:
        say(f"dispatch: {rows:,} rows")
        found = measure_dispatch(model, folder / f"dispatch-{rows}", rows=rows, workers=scale.workers)
        memory = (f"{mib:.0f}" for mib in found.rss_mib)
        table.add_row(f"{rows:,}", f"{found.rows_per_s:,.0f}", f"{found.checked_per_s:,.0f}", *memory)
    return table


def _checks_table(model: Path, folder: Path, scale: Scale) -> Table:
    say(f"checks: {scale.checked_rows:,} rows")
    table = Table(title="a table planned; rows that a second pass feeds; rows with nothing in common")
    for heading in CHECKED:
        table.add_column(heading, justify="right")
    table.add_row(*measure_checks(model, folder / "checks", rows=scale.checked_rows).cells())
    return table


if __name__ == "__main__":
    main()
