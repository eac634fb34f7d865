"""The commands `framefleet gallery`, `sheet`, `grid` and `report`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from framefleet.api.commands import (
    Every,
    OutputToRead,
    Port,
    StorageSets,
    Where,
    stderr,
    stdout,
    wait_for,
)
from framefleet.api.errors import JobError, command, count_text, rounded

EVERY_S = 5.0

if TYPE_CHECKING:
    from framefleet.plugins.pages.page_server import PageServer
    from framefleet.plugins.pages.sheet.sheet import Drawn


def gallery_command(
    output: OutputToRead,
    x: Annotated[
        str | None, Option("--x", "--columns", metavar="COLUMN", help="Column across the grid, e.g. seed.")
    ] = None,
    y: Annotated[
        str | None,
        Option("--y", "--rows", metavar="COLUMN", help="Column down the grid, e.g. guidance_scale."),
    ] = None,
    previews: Annotated[
        bool, Option("--previews", help="Make a preview image for each clip that has none.")
    ] = False,
    serve: Annotated[
        bool,
        Option("--serve", help="Serve the page on this machine, and save stars and notes in the output."),
    ] = False,
    port: Port = 0,
    sets: StorageSets = None,
) -> None:
    """Write a page into an output to view, filter, compare and pick its clips. Prints its location.

    Open the page in a browser, from a folder, a bucket or any web server. `render` writes it for local
    outputs.
    """
    from framefleet.api.jobs import storage_options, watch_on
    from framefleet.api.outputs import Output
    from framefleet.plugins.pages.gallery.gallery import make_stills, write_gallery
    from framefleet.plugins.pages.gallery.serve import GalleryServer

    _check_serve(serve, with_it={"--port": port or None}, without={})
    store = Output.open_rendered(output, storage_options(sets)).store
    with watch_on(stderr) as watch:
        if previews:
            wait_for(watch, "making previews")
            watch.say(f"{count_text(make_stills(store), 'preview')} made")
        wait_for(watch, "writing the gallery")
        place = write_gallery(store, x=x, y=y)
    if not serve:
        stdout.say(place)
        return
    from framefleet.plugins.picks import PICKS

    with GalleryServer(store, port=port) as server:
        _serve(server, f"stars and notes are saved in {store.url_of(PICKS)}; ")


def _check_serve(serve: bool, *, with_it: Mapping[str, Any], without: Mapping[str, Any]) -> None:
    """Raise JobError for an option without effect. with_it: those that need --serve; without: others."""
    for name, value in (without if serve else with_it).items():
        if value is not None and value is not False:
            option = name if value is True else f"{name} {value}"
            fix = "leave one of them out" if serve else "add --serve, or leave it out"
            raise JobError(f"{option} has no effect {'with' if serve else 'without'} --serve", fix)


def _serve(server: PageServer, note: str = "") -> None:
    """Print the URL of a served page, and wait for Ctrl-C."""
    with suppress(KeyboardInterrupt):
        stdout.say(server.url)
        stderr.say(f"{note}press Ctrl-C to stop")
        server.wait()


def _column(option: str, text: str) -> Any:
    return Option(option, metavar="COLUMN", help=text)


_Rows = Annotated[str | None, _column("--rows", "Column whose values are on the left.")]
_Columns = Annotated[str | None, _column("--columns", "Column whose values are at the top.")]
_Captions = Annotated[list[str] | None, _column("--caption", "Column to show below each clip; repeatable.")]
_Limit = Annotated[
    int,
    Option("--limit", min=1, max=1000, metavar="N", help="Maximum number of clips, or of cells of a grid."),
]


def sheet_command(
    output: OutputToRead,
    to: Annotated[
        Path, Option("--to", "-o", metavar="FILE", help="Picture to write: .png, .jpg or .webp.")
    ] = Path("sheet.png"),
    rows: _Rows = None,
    columns: _Columns = None,
    where: Where = None,
    captions: _Captions = None,
    limit: _Limit = 60,
    tile: Annotated[
        int | None,
        Option(
            "--tile",
            min=16,
            max=2048,
            metavar="PIXELS",
            help="Width of a clip in pixels. Default: 480 for three frames, 192 for one.",
        ),
    ] = None,
    sets: StorageSets = None,
) -> None:
    """Draw the clips of an output in one picture: three frames of each, in the order that their rows had.

    With --rows and --columns, draw a grid with one frame of each, e.g. --rows prompt --columns seed.
    """
    from framefleet.plugins.pages.sheet.sheet import sheet

    draw = partial(sheet, output, to, where=where, captions=captions or (), limit=limit, tile=tile)
    _show(draw, rows, columns, sets)


def grid_command(
    output: OutputToRead,
    to: Annotated[
        Path, Option("--to", "-o", metavar="FILE", help="File to write: .mp4, .mkv, .gif or .webp.")
    ] = Path("grid.mp4"),
    rows: _Rows = None,
    columns: _Columns = None,
    where: Where = None,
    captions: _Captions = None,
    limit: _Limit = 60,
    tile: Annotated[
        int, Option("--tile", min=16, max=2048, metavar="PIXELS", help="Width of a clip in pixels.")
    ] = 192,
    sets: StorageSets = None,
) -> None:
    """Draw the clips of an output side by side in one video, e.g. --rows prompt --columns seed."""
    from framefleet.plugins.pages.sheet.sheet import grid

    draw = partial(grid, output, to, where=where, captions=captions or (), limit=limit, tile=tile)
    _show(draw, rows, columns, sets)


def _show(draw: Callable[..., Drawn], rows: str | None, columns: str | None, sets: StorageSets) -> None:
    """Draw; print the path of the picture, and how many clips are missing in it."""
    from framefleet.api.jobs import storage_options, watch_on

    options_of_store = storage_options(sets)
    with watch_on(stderr) as watch:
        wait_for(watch, "reading records")
        drawn = draw(rows=rows, columns=columns, storage_options=options_of_store, on_progress=watch.show)
    if drawn.num_found > drawn.num_clips + drawn.num_more:
        fix = "the grid has more cells than --limit; raise it, or use other columns"
        if not (rows or columns):
            fix = "raise --limit, or choose clips with --where"
        stderr.say(f"shown: {drawn.num_clips:,} of {count_text(drawn.num_found, 'clip')}: {fix}")
    if drawn.num_more:
        same = " and ".join(filter(None, (rows, columns)))
        why = f"because another clip has the same {same}"
        fix = "choose clips with --where, or use other columns"
        stderr.say(f"not shown: {count_text(drawn.num_more, 'clip')}, {why}; {fix}")
    stdout.say(str(drawn.path))


def report_command(
    output: OutputToRead,
    price: Annotated[
        float | None,
        Option(
            "--price",
            min=0.0,
            metavar="PRICE",
            help="Price of a GPU for one hour, in any currency, e.g. 2.5. Adds the cost.",
        ),
    ] = None,
    accepted: Annotated[
        str | None,
        Option(
            "--accepted",
            metavar="SQL",
            help='Count only clips for which this is true, e.g. "stars >= 3" or "sharpness > 0.4". '
            "Default: all.",
        ),
    ] = None,
    serve: Annotated[
        bool, Option("--serve", help="Serve a page on this machine that follows the job and plays new clips.")
    ] = False,
    port: Port = 0,
    every_s: Every = EVERY_S,
    as_json: Annotated[bool, Option("--json", help="Print the report as JSON, and write nothing.")] = False,
    sets: StorageSets = None,
) -> None:
    """Write report.html and report.json into an output: throughput, failures, cost and more.

    Shows rows by state, throughput, batch sizes, worker and idle time, failures, cost, environment and model.
    --serve writes nothing, but serves a live page of a running job. Needs no cluster.
    """
    from framefleet.api.jobs import output_at

    every = None if every_s == EVERY_S else every_s
    of_report = {"--price": price, "--accepted": accepted, "--json": as_json}
    _check_serve(serve, with_it={"--port": port or None, "--every": every}, without=of_report)
    if serve:
        from framefleet.plugins.pages.report.live_page import StatusServer

        with StatusServer(output_at(output, sets), port=port, every_s=every_s) as server:
            _serve(server)
        return
    from framefleet.api.jobs import watch_on
    from framefleet.plugins.pages.report.report import PAGE, VALUES, report_of, write_report

    opened = output_at(output, sets, is_rendered=True)
    store = opened.store
    with watch_on(stderr) as watch:
        wait_for(watch, f"reading the records of {opened.url}")
        made = report_of(store, price=price, accepted=accepted)
    if as_json:
        stdout.say(made.to_json(is_ascii=True).rstrip("\n"))
        return
    write_report(store, made)
    if made.cost:
        unit, cost = "GPU" if made.gpus_per_worker else "worker", made.cost
        hours = f"{unit} hours: {rounded(cost.gpu_hours)}{cost.inner_text}{',' if cost.inner_text else ''}"
        parts = [] if price is None else [f"{hours} x {price:g}"]
        parts += [f"paid to servers: {cost.paid:,.2f}"] * bool(cost.paid)
        stdout.say(f"cost: {cost.total:,.2f} ({', '.join(parts)})")
    if made.clip_yield:
        stdout.say(f"yield: {made.clip_yield.text()}")
        if accepted and not made.clip_yield.num_accepted:
            stars = "; stars are given in `gallery --serve`" if "stars" in accepted else ""
            stderr.say(f"note: no clip meets {accepted!r}{stars}")
    stdout.say(f"report: {store.url_of(PAGE)}")
    stdout.say(f"json:   {store.url_of(VALUES)}")
    for name, one in opened.inner.items():
        stderr.say(f"{name} have a report of their own: {command('report', one.url)}")
