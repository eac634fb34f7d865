"""From a job's model to the time of one clip by each placement, and on one device."""

from __future__ import annotations

import time
from dataclasses import replace

from framefleet.cluster.worker.messages import WorkerSetup
from framefleet.doors import placements
from framefleet.jobs.show.watch import Watch, wait_for
from framefleet.pipeline.errors import FramefleetError
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.memory import free_memory, is_out_of_memory
from framefleet.pipeline.model.load import load
from framefleet.pipeline.model.model import ModelSettings
from framefleet.pipeline.outputs.clips import Clip, Outcome
from framefleet.pipeline.render.audit.schedule import Audit
from framefleet.pipeline.render.renderer import Renderer
from framefleet.pipeline.request import MAX_SEED, Request

ONE = "one device"


def compare_placements(setup: WorkerSetup, request: Request, watch: Watch) -> dict[str, float | str]:
    """Return the seconds of one clip by each placement, and on one device; or why it cannot be rendered so.

    Nothing for a job without a placement.
    """
    own = setup.model.placement
    if own is None:
        return {}
    results: dict[str, float | str] = {}
    kinds = {name: kind() for name, kind in placements().items()}
    for name in (ONE, *kinds):
        wait_for(watch, f"rendering a row: {name}")
        free_memory()  # of the model before, and all that it holds
        placement = None
        if name != ONE:
            ranks = own.ranks if kinds[name].takes_ranks else None
            placement = own.model_copy(update={"type": name, "ranks": ranks})
        try:
            results[name] = _seconds(setup, replace(setup.model, placement=placement), request)
        except FramefleetError as error:
            results[name] = error.problem
        except Exception as error:  # of one placement: what is known of the others stays
            reason = public_text(f"{type(error).__name__}: {error}")
            results[name] = "out of memory" if is_out_of_memory(error) else reason
    free_memory()
    return results


def _seconds(setup: WorkerSetup, settings: ModelSettings, request: Request) -> float:
    """Time a second row: for the first one, texts are encoded and what is computed is compared."""
    model = load(settings, setup.model_files)
    renderer = Renderer(
        model,
        replace(setup.batching, remember=False),
        recipes=setup.recipes,
        inputs=setup.inputs,
        second_models=setup.second_models,
        audit=Audit(every=0),
    )
    try:
        for number in range(2):
            began = time.perf_counter()
            renderer.submit(replace(request, seed=(request.seed + number) % MAX_SEED), f"{number:032}")
            ended: list[Outcome] = []
            while renderer.num_active:
                ended += renderer.step()
            if not isinstance(ended[0], Clip):
                raise ended[0].error
        return time.perf_counter() - began
    finally:
        renderer.cancel()
        if model.placer:
            model.placer.close()
