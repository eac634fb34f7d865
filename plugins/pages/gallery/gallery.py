"""Write or update the page in an output's folder `gallery/` that shows the output.

    gallery/index.html, *.css, *.js    the page (`page/`)
    gallery/manifest.js                how many rows, which columns, which blocks
    gallery/data/<digest>.js           blocks: values of one column, named by what is in them
    gallery/axes.json                  the axes that were asked for, so that the next call keeps them
    gallery/version.js                 what an open page looks at, to see that there is more

Files are written in an order in which a page always finds all files in its manifest. The folder is derived,
so it may be deleted. An existing page is not trusted, as its scripts would run: its files are compared with
ours.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from framefleet.api.errors import FramefleetError, JobError
from framefleet.api.jobs import notes
from framefleet.api.outputs import Output, Store, fix_of_missing, read_json
from framefleet.api.texts import canonical_json
from framefleet.pipeline.outputs import layout
from framefleet.pipeline.outputs.media.media import preview_of
from framefleet.pipeline.outputs.media.media_settings import SOUNDS
from framefleet.pipeline.outputs.output import FRAMES_OF
from framefleet.plugins.pages.gallery.blocks import (
    BLOCK_ROWS,
    TableBlocks,
    in_blocks,
    roles_in,
    script,
    shown_failures,
    shown_records,
)

GALLERY = "gallery"
PAGE_FOLDER = Path(__file__).with_name("page")
INDEX, _MANIFEST, _VERSION, _AXES = (
    f"{GALLERY}/{name}" for name in ("index.html", "manifest.js", "version.js", "axes.json")
)
BLOCK = re.compile(rf"{GALLERY}/data/[0-9a-f]{{20}}\.js", re.ASCII)
DATA = (_MANIFEST, _VERSION)  # besides the blocks
_IDENTITY = re.compile(rb"\bidentity\W+([0-9a-f]{16})\b")  # in a manifest
_NUM_WRITERS = 8  # a bucket answers in tens of milliseconds
_MAX_CLAIM = 1 << 20  # bytes of job.json that count
_AT_ONCE = 64  # clips waiting for a thread
_EVERY_S = 15.0
_MAX_SHARE = 0.02  # of the driver's time, as reading an output of millions of rows takes minutes


log = logging.getLogger(__name__)


def gallery(
    output: str | Path,
    *,
    x: str | None = None,
    y: str | None = None,
    previews: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> str:
    """Write a page that shows an output into its folder `gallery/`; return the place of its index.html.

    x, y: initial axes of its grid; None keeps those of the previous call, "" removes them. previews: also
    make missing previews. Raises JobError for an unknown column and a place that is not an output, and
    StoreError if it cannot be read or written.
    """
    store = Output.open_rendered(str(output), storage_options).store
    if previews:
        make_stills(store)
    return write_gallery(store, x=x, y=y)


def write_gallery(
    store: Store,
    *,
    x: str | None = None,
    y: str | None = None,
    is_ours: bool = False,
    check: Callable[[], None] = lambda: None,
) -> str:
    """Do what `gallery` promises, for an output that is open.

    is_ours: the page that is there was written here, and stays where no part has come, gone or changed since.
    check: called before each block of rows, and before what is written counts; what it raises leaves the page
    as it was.
    """
    try:
        remembered = read_json(store, _AXES, TypeAdapter(dict[str, str]))
    except (FileNotFoundError, JobError):  # the gallery is derived, and written anew as if it were the first
        remembered = {}
    axes = remembered | {name: axis for name, axis in (("x", x), ("y", y)) if axis is not None}
    lines = notes(store)
    # A digest of what the gallery shows, its page, its axes and its notes.
    parts = [store.details(folder) for folder in (layout.RECORDS, layout.FAILURES, layout.SCORES)]
    sizes = [[path, stored.size] for folder in parts for path, stored in sorted(folder.items())]
    page = [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(PAGE_FOLDER.iterdir())]
    shown = json.dumps([store.url_of(""), sizes, page, sorted(axes.items()), lines])
    version = hashlib.sha256(shown.encode()).hexdigest()[:20]
    there = set(store.list(GALLERY))
    is_whole = {INDEX, _MANIFEST, _VERSION} <= there
    if is_ours and is_whole and store.read(_VERSION) == script("newest", version):
        return store.url_of(INDEX)
    with ThreadPoolExecutor(_NUM_WRITERS) as writers:
        blocks = _Blocks(store, there, writers)
        tables = {
            "records": _blocks_of(shown_records(store), blocks, check),
            "failures": _blocks_of(shown_failures(store), blocks, check),
        }
        names = [column["name"] for column in tables["records"]["columns"]]
        for axis in filter(None, (x, y)):
            if axis not in names:
                raise JobError(f"{store.url_of('')} has no column {axis!r}", fix_of_missing(axis, names))
        for file in sorted(PAGE_FOLDER.iterdir()):
            _put(store, f"{GALLERY}/{file.name}", file.read_bytes(), there)
        blocks.finish()
    check()
    manifest: dict[str, Any] = {"block_rows": BLOCK_ROWS, "tables": tables, "notes": lines}
    manifest |= {"output": store.url_of(""), "identity": _identity(store, there)}
    manifest |= {name: axes.get(name) if axes.get(name) in names else None for name in ("x", "y")}
    text = json.dumps(manifest, separators=(",", ":"))
    written_at = datetime.now(UTC).isoformat(timespec="seconds")
    if axes:
        store.write(_AXES, canonical_json(axes).encode())
    store.write(_MANIFEST, script("manifest", version, written_at, text))
    store.write(_VERSION, script("newest", version))
    store.delete_many(filter(BLOCK.fullmatch, there - blocks.named))
    return store.url_of(INDEX)


def _identity(store: Store, there: Collection[str]) -> str:
    """Return under what browsers keep stars: it stays when the output is moved, and when its job changes."""
    if _MANIFEST in there and (earlier := _IDENTITY.findall(store.read(_MANIFEST))):
        return str(earlier[-1].decode())
    try:
        claim = store.read(layout.CLAIM, _MAX_CLAIM)
    except FileNotFoundError:
        claim = store.url_of("").encode()
    return hashlib.sha256(claim).hexdigest()[:16]


class _Blocks:
    """The blocks of one gallery, written while more is read; those that are there unchanged stay."""

    def __init__(self, store: Store, there: set[str], writers: ThreadPoolExecutor) -> None:
        self.named: set[str] = set()
        self._store, self._there, self._writers = store, there, writers
        self._written: list[Any] = []

    def put(self, name: str, content: bytes) -> None:
        path = f"{GALLERY}/data/{name}.js"
        if path not in self.named:
            while len(self._written) > 2 * _NUM_WRITERS:  # no more in memory
                self._written.pop(0).result()
            self._written.append(self._writers.submit(_put, self._store, path, content, self._there))
        self.named.add(path)

    def finish(self) -> None:
        for written in self._written:
            written.result()


def _blocks_of(tables: Iterator[pa.Table], blocks: _Blocks, check: Callable[[], None]) -> dict[str, Any]:
    table_blocks = TableBlocks(blocks.put)
    for table in in_blocks(tables):
        check()
        table_blocks.add(table, roles_in(table))
    return table_blocks.described()


def _put(store: Store, path: str, content: bytes, there: set[str]) -> None:
    """Write a file of the gallery, unless it is there as it is."""
    if path not in there or store.read(path, len(content) + 1) != content:
        store.write(path, content)


def make_stills(store: Store) -> int:
    """Store a preview of every clip that has none; return how many. A clip that is damaged gets none."""
    there = set(store.list(layout.PREVIEWS))
    missing = ((clip, record) for clip, record in _clips(store) if layout.preview_path(clip) not in there)
    num_made = 0
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        while some := list(islice(missing, _AT_ONCE)):
            num_made += sum(threads.map(lambda pair: _make(store, *pair), some))
    return num_made


def _clips(store: Store) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield where each clip with a picture is, and what its record says of it."""
    for table in Output(store).records(FRAMES_OF):
        for record in table.to_pylist():
            try:
                clip = layout.recorded_path(record, layout.RECORDS)
            except JobError:  # of a record that we did not write
                continue
            if not clip.endswith(SOUNDS):
                yield clip, record


def _make(store: Store, clip: str, record: Mapping[str, Any]) -> bool:
    try:
        content = preview_of(Output(store).frames(record))
    except FramefleetError as error:
        log.warning("%s: no preview: %s", store.url_of(clip), error)
        return False
    store.write(layout.preview_path(clip), content)
    return True


@contextmanager
def refreshed_gallery(store: Store) -> Iterator[None]:
    """Write the gallery regularly, and when the block ends without an error. Failures are only logged.

    For the process with the output's lock. An interrupted run does not wait for the page, which `framefleet
    gallery` can also write. Only for local folders, since elsewhere each file costs money.
    """
    if "://" in store.url_of(""):
        yield
        return
    is_over = threading.Event()

    def check() -> None:
        if is_over.is_set():
            raise CancelledError

    def refresh() -> None:
        rest_s = _EVERY_S
        while not is_over.wait(rest_s):
            began = time.monotonic()
            _write(store, check)
            rest_s = max(_EVERY_S, (time.monotonic() - began) / _MAX_SHARE)

    refreshing = threading.Thread(target=refresh, name="gallery", daemon=True)
    refreshing.start()
    try:
        yield
    finally:
        is_over.set()
        refreshing.join()
    _write(store)


def _write(store: Store, check: Callable[[], None] = lambda: None) -> None:
    try:
        if store.list(layout.RECORDS) or store.list(layout.FAILURES):
            write_gallery(store, is_ours=True, check=check)
    except CancelledError:
        log.debug("the gallery was not finished: the job has ended")
    except Exception as error:  # whatever it is: clips and records are there, and the page is derived
        log.warning("no gallery: %s", error)
