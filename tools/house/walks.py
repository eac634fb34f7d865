"""How a reader of the code walks: the files that setting up a job, and one clip, come through, in order.

A stop is a file whose functions are entered for the first time; its room is its folder. A climb is a step to
a package above (pipeline, cluster, jobs).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from tools.house.house import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
ABOVE = {"pipeline": 0, "cluster": 1, "jobs": 2, "plugins": 3}


def walks() -> Iterator[str]:
    """Yield a line for each walk. Renders a row of the demo in this process."""
    from framefleet.jobs.job.file import load_job
    from framefleet.jobs.render.claim import claim
    from framefleet.jobs.render.render import run_of
    from framefleet.jobs.render.resolve import resolve_job
    from framefleet.jobs.show.watch import Callback
    from framefleet.pipeline.rows.tables.index import RowIndex
    from framefleet.plugins.demo.prepare import MODEL

    with TemporaryDirectory() as folder:
        table = Path(folder) / "t.csv"
        table.write_text("prompt,seed\na red ball bounces on a blue background,1\n")
        values = {
            "table": str(table),
            "output": f"{folder}/out",
            "model": {"path": str(MODEL), "device": "cpu"},
        }

        def set_up() -> Any:
            resolved = resolve_job(load_job(values), Callback())
            claim(resolved)
            return resolved, run_of(resolved, RowIndex(), None, run_id="r1")

        stops, (resolved, run) = _walk(set_up)
        yield _line("a job, until its workers start", stops)
        stops, _ = _walk(_one_clip(resolved, next(iter(run.setups.values()))))
        yield _line("a clip, from its row to its record", stops)


def _one_clip(resolved: Any, setup: Any) -> Callable[[], None]:
    """Return what renders and stores the first row, with a loaded model."""
    from framefleet.pipeline.model.load import load
    from framefleet.pipeline.outputs.encode_clip import encode_clip, store_clip
    from framefleet.pipeline.outputs.parts.parts import PartWriter
    from framefleet.pipeline.outputs.parts.records import RECORD_FIELDS, values_of
    from framefleet.pipeline.render.renderer import Renderer

    renderer = Renderer(load(setup.model, setup.model_files), setup.batching, recipes=setup.recipes)
    writer = PartWriter(resolved.store, "records", RECORD_FIELDS, run="r1")

    def render() -> None:
        (rows,) = (resolved.first.plan.rows(first, batch) for first, batch in resolved.table.batches())
        (row,) = rows
        renderer.submit(row.request, resolved.first.identity(row.request))
        while renderer.num_active:
            for clip in renderer.step():
                writer.add(
                    None,
                    values_of(
                        store_clip(resolved.store, encode_clip(clip, setup.media, setup.steps.values()))
                    ),
                )
        writer.flush()

    return render


def _walk(run: Callable[[], Any]) -> tuple[list[str], Any]:
    """Return the files of ours that a call enters, in the order of their first entry, and what it returns."""
    stops: dict[str, None] = {}

    def enter(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_name != "<module>":  # imports are no steps
            path = Path(code.co_filename).resolve()
            if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PACKAGES:
                stops.setdefault(path.relative_to(ROOT).as_posix())

    sys.setprofile(enter)
    try:
        found = run()
    finally:
        sys.setprofile(None)
    return list(stops), found


def _line(what: str, stops: list[str]) -> str:
    rooms = {stop.rpartition("/")[0] for stop in stops}
    packages = [ABOVE[stop.partition("/")[0]] for stop in stops]
    climbs = sum(later > earlier for earlier, later in pairwise(packages))
    return f"{what}: {len(stops)} stops in {len(rooms)} rooms, climbs: {climbs}"
