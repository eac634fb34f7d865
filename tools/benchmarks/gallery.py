"""A real job of 10,000 records, and how soon its gallery answers in a browser: docs/gallery.md.

    python -m tools.benchmarks.gallery FOLDER [--scenes 60] [--seeds 20] [--shots docs]

Renders the job in FOLDER, or goes on with it: an hour of two CPU cores. `--shots` takes the pictures of
docs/gallery.md, for which `--scenes 12 --seeds 8` are enough. Prints figures and judges none.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import framefleet
from framefleet.jobs.job.file import load_job
from framefleet.jobs.render.command import show_render
from tests.browser.chromium import PHONE, WIDE, browser
from tests.browser.shots import take_shots
from tests.browser.stopwatch import Times, times_of, watched
from tools.benchmarks.gallery_job import NUM_SCENES, NUM_SEEDS, write_gallery_job
from tools.benchmarks.results import tables

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=NUM_SCENES, help="each is said in English and Chinese")
    parser.add_argument("--seeds", type=int, default=NUM_SEEDS)
    parser.add_argument("--shots", type=Path, help="take pictures, into this folder")
    given = parser.parse_args()
    job = write_gallery_job(given.folder, num_scenes=given.scenes, num_seeds=given.seeds)
    show_render(load_job(job))
    output = given.folder / "out"
    print("; ".join(about(output)))
    url = (output / "gallery/index.html").resolve().as_uri()
    complaints: list[str] = []
    with browser() as opened:
        seen = {}
        for name, viewport in {"desktop": WIDE, "phone": PHONE}.items():
            pages = partial(opened_page, opened, url, viewport, complaints)
            seen[name] = dict(figures(times_of(pages, ["guidance_scale"] if given.scenes == 1 else None)))
        if given.shots:
            take_shots(opened, url, given.shots)
    first = next(iter(seen.values()))
    print(tables({"ms": name, **{screen: told[name] for screen, told in seen.items()}} for name in first))
    print(f"{len(complaints)} complaints of the console", *complaints, sep="\n")


def opened_page(opened: Browser, url: str, viewport: Any, complaints: list[str]) -> Page:
    page = opened.new_page(viewport=viewport)
    page.on("console", lambda told: told.type in ("error", "warning") and complaints.append(told.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return watched(page, url)


def figures(times: Times) -> Iterator[tuple[str, str]]:
    """Yield the lines of a table: the median of all columns, and the slowest with its name."""
    for what in fields(times):
        of = getattr(times, what.name)
        slowest = max(of, key=of.__getitem__)
        yield what.name.replace("_", " "), f"{median(of.values()):.0f}; {slowest} {of[slowest]:.0f}"


def about(output: Path) -> Iterator[str]:
    """Yield what the job left, and what its gallery costs when it is written anew."""
    found = framefleet.status(str(output))
    yield f"{found.num_done:,} records, {found.num_failed:,} failed"
    shutil.rmtree(output / "gallery")
    began = time.process_time()
    framefleet.gallery(output)
    yield f"gallery written in {time.process_time() - began:.1f} CPU s"
    for folder in ("clips", "previews", "records", "gallery"):
        files = [file for file in (output / folder).rglob("*") if file.is_file()]
        yield f"{folder}: {len(files):,} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
