"""Predict what rendering the remaining rows of a job takes, by rendering some here.

A worker's renderer gets rows of each kind, batched as in a worker, until it has reached its pace. As in a
run, this machine remembers which batch sizes pay and are exact. A renderer that first had to find this out is
not timed. No clips are stored.

Also times one clip with each placement, and on one device.
"""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace

from framefleet.api.clips import Clip, Outcome, Request
from framefleet.api.commands import Watch, wait_for
from framefleet.api.errors import FramefleetError, JobError, RenderError
from framefleet.api.jobs import Job
from framefleet.api.models import Model, ModelSettings, Placer, Renderer, free_memory, is_out_of_memory, load
from framefleet.api.texts import public_text, python
from framefleet.cluster.driver.feed import Pending, pending_rows
from framefleet.cluster.fleet.warm import server
from framefleet.cluster.fleet.warm.start import environment_of_imports, may_fork
from framefleet.cluster.worker.messages import WorkerSetup
from framefleet.jobs.render.lanes import setup_of
from framefleet.jobs.render.resolve import ResolvedJob
from framefleet.pipeline.outputs.encode_clip import encode_clip
from framefleet.pipeline.plugin import by_name
from framefleet.pipeline.render.audit.schedule import Audit
from framefleet.pipeline.request import MAX_SEED
from framefleet.pipeline.rows.identity import Identity, LaneKey, lane_of
from framefleet.pipeline.rows.tables.index import RowIndex
from framefleet.plugins.forecast.prediction import (
    Kinds,
    Prediction,
    RowKind,
    Took,
    Tried,
    calls_of,
    in_turn,
    predict,
)
from framefleet.plugins.memory.room import gpus_here

ONE = "one device"


def compare_placements(setup: WorkerSetup, request: Request, watch: Watch) -> dict[str, float | str]:
    """Return the seconds of one clip with each placement and on one device, or why it cannot be rendered.

    Empty for a job without a placement.
    """
    own = setup.model.placement
    if own is None:
        return {}
    results: dict[str, float | str] = {}
    kinds: dict[str, type[Placer]] = {name: kind() for name, kind in by_name("placements").items()}
    for name in (ONE, *kinds):
        wait_for(watch, f"rendering a row: {name}")
        free_memory()  # of the model before
        placement = None
        if name != ONE:
            ranks = own.ranks if kinds[name].takes_ranks else None
            placement = own.model_copy(update={"type": name, "ranks": ranks})
        try:
            results[name] = _seconds(setup, replace(setup.model, placement=placement), request)
        except FramefleetError as error:
            results[name] = error.problem
        except Exception as error:  # of this placement; times of others are still useful
            reason = public_text(f"{type(error).__name__}: {error}")
            results[name] = "out of memory" if is_out_of_memory(error) else reason
    free_memory()
    return results


def _seconds(setup: WorkerSetup, settings: ModelSettings, request: Request) -> float:
    """Time a second row. For the first row, texts are encoded and results are compared."""
    model = load(settings, setup.model_files)
    alone = replace(setup.batching, remember=False)
    renderer = _renderer(model, replace(setup, batching=alone, audit=Audit(every=0)))
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


def _renderer(model: Model, setup: WorkerSetup) -> Renderer:
    return Renderer(
        model,
        setup.batching,
        recipes=setup.recipes,
        inputs=setup.inputs,
        second_models=setup.second_models,
        audit=setup.audit,
        keep=setup.keep,
    )


COMMAND_S = 1.5  # for the command, before anything starts in the background
# Ray's own processes and the driver's part of starting them, on one core of a cloud machine.
RAY = Took(wall_s=5.0, cpu_s=9.0)
MAX_TRIED = 16  # kinds; others are estimated from these, as a table may have a size per row
NEW = 0.1  # share of the longest encoding time; texts that take less were remembered


def try_rows(
    setup: WorkerSetup, identity: Identity, kinds: Sequence[RowKind], watch: Watch, *, num_workers: int
) -> tuple[Took, list[Tried]]:
    """Render rows of each kind; return how long loading the model took, and rows of each kind.

    The model may be in the page cache. Raises errors of loading, and RenderError if a row fails.

    num_workers: that will share the table's rows, so kinds with few rows have smaller batches.
    """
    wait_for(watch, "loading the model")
    clock = _Clock()
    model = load(setup.model, setup.model_files)
    loaded = clock.lap()
    tried = []
    try:
        for kind in kinds:
            wait_for(watch, f"rendering rows of {kind.name}")
            most = -(-kind.num_rows // num_workers)
            tried.append(_Stream(model, setup, identity, kind, most=most).measure())
    finally:
        if model.placer:
            model.placer.close()
    return loaded, tried


class _Clock:
    """Measures wall and processor time since the last lap."""

    def __init__(self) -> None:
        self._since = self._now()

    def lap(self) -> Took:
        before, self._since = self._since, self._now()
        return self._since - before

    @staticmethod
    def _now() -> Took:
        return Took(wall_s=time.perf_counter(), cpu_s=time.process_time())


class _Stream:
    """An endless stream of rows of one kind through a renderer. most: rows in flight at once."""

    def __init__(
        self, model: Model, setup: WorkerSetup, identity: Identity, kind: RowKind, *, most: int
    ) -> None:
        self._model, self._setup, self._identity, self._kind = model, setup, identity, kind
        self._most = most
        self._is_first = True
        self._rows = (  # in the table's proportions, each with its own seed
            replace(request, seed=(request.seed + number) % MAX_SEED)
            for number, request in enumerate(kind.sample())
        )

    def measure(self) -> Tried:
        """Time a worker's first rows, then further rows at its pace."""
        renderer, clock = self._renderer(), _Clock()
        first, begun = self._window(renderer, clock)
        if renderer.capacity > 1 and not renderer.num_remembered:
            renderer.cancel()  # it had to find out which batch sizes pay, but workers know this from disk
            renderer, clock = self._renderer(), _Clock()
            first, begun = self._window(renderer, clock)
        seconds = max((audited.seconds for audited in renderer.take_audits()), default=0.0)
        audit = begun * min(1.0, seconds / begun.wall_s)
        then, pace = self._window(renderer, clock)
        renderer.cancel()
        clock.lap()
        # This machine need not have the keys with which workers sign.
        steps = [step for step in self._setup.steps.values() if not step.unrepeatable]
        sizes = [len(encode_clip(clip, self._setup.media, steps).content) for clip in then]
        write = clock.lap() * (1 / len(then))
        calls = self._kind.num_calls / self._kind.num_rows
        # Only new texts: texts of earlier rows are remembered, and take no time.
        encode_s = sorted(clip.seconds["encode_s"] for clip in first)
        new = [seconds for seconds in encode_s if seconds >= encode_s[-1] * NEW]
        render = (pace - _encoding(then, pace)) * (calls / sum(calls_of(clip.request) for clip in then))
        of_first = render * (sum(calls_of(clip.request) for clip in first) / calls)
        return Tried(
            name=self._kind.name,
            num_rows=self._kind.num_rows,
            render=render,
            write=write,
            once=begun - _encoding(first, begun) - of_first - audit,
            audit=audit,
            text=begun * (new[len(new) // 2] / begun.wall_s),
            num_bytes=sum(sizes) / len(sizes),
            mean_batch=sum(clip.batch_size for clip in then) / len(then),
            num_rendered=len(first) + len(then),
        )

    def _renderer(self) -> Renderer:
        """Return a renderer that audits its first row, to time the audit."""
        self._is_first = True
        return _renderer(self._model, self._setup)

    def _window(self, renderer: Renderer, clock: _Clock) -> tuple[list[Clip], Took]:
        """Return as many clips as are in flight at once, and their time. RenderError if a row fails."""
        ended: list[Clip] = []
        while len(ended) < self._room(renderer):
            while renderer.num_active < self._room(renderer):
                request = next(self._rows)
                renderer.submit(request, self._identity(request), is_audited=self._is_first)
                self._is_first = False
            for outcome in renderer.step():
                if not isinstance(outcome, Clip):
                    raise RenderError(
                        f"a row of {outcome.request.arguments.get('prompt')!r:.80} fails: {outcome.error}",
                        "correct it, or render it alone to see more",
                    )
                ended.append(outcome)
            if self._room(renderer) == 1 < renderer.num_active and not ended:
                # Batching does not pay, and the rows in flight would take turns for minutes.
                self._most = 1
                renderer.cancel()
                clock.lap()
        return ended, clock.lap()

    def _room(self, renderer: Renderer) -> int:
        return max(1, min(renderer.capacity, self._most))


def _encoding(clips: Sequence[Clip], took: Took) -> Took:
    """Return how much of the clips' time went into encoding texts."""
    return took * min(1.0, sum(clip.seconds["encode_s"] for clip in clips) / took.wall_s)


def num_workers_of(job: Job) -> int:
    """Return the number of workers that a job starts. JobError if it joins a cluster, which decides this."""
    fleet = job.fleet
    if fleet.max_workers is not None:
        return fleet.max_workers
    if fleet.address is not None:
        raise JobError(
            f"the number of workers depends on the cluster at {fleet.address}",
            "set it for the prediction, e.g. --set fleet.workers=8",
        )
    are_on_cpu = all(model.device == "cpu" for model in job.by_name.values())
    gpus = 0 if are_on_cpu else len(gpus_here())
    if fleet.gpus_per_worker != 0 and gpus:
        return max(1, int(gpus / fleet.paid_gpus))
    return fleet.most_on_cpu


def predict_job(resolved: ResolvedJob, index: RowIndex, watch: Watch, *, num_audits: float) -> Prediction:
    """Render some rows of each kind, one lane at a time, and predict what the rest takes."""
    by_lane: dict[LaneKey, Kinds] = {}
    for row in pending_rows(resolved.table, resolved.rows, index):
        if isinstance(row.payload, Pending):
            request = row.payload.request
            new = Kinds(remembers_texts=resolved.recipes[request.recipe].is_batched)
            by_lane.setdefault(lane_of(request), new).add(row.shape, request)
    by_lane = dict(sorted(by_lane.items(), key=lambda one: one[0].recipe))  # a user's code runs last
    job, num_rows = resolved.job, sum(kinds.num_rows for kinds in by_lane.values())
    settings, num_cores = resolved.first.settings, os.cpu_count() or 1
    if resolved.keep_embeddings:
        watch.say("note: keep_embeddings is set, and the time to store embeddings is not measured")
    wait_for(watch, "importing libraries, as a worker does")
    is_forked = may_fork(job.fleet, device=settings.device)
    starts_s = starting_s(time_imports(threads=settings.threads), is_forked=is_forked, num_cores=num_cores)
    num_workers, predictions = num_workers_of(job), []
    for lane, kinds in by_lane.items():
        setup, identity = setup_of(resolved, lane), resolved.models[lane.model].identity
        tried = kinds.most_frequent(MAX_TRIED)
        load, kinds_tried = try_rows(setup, identity, tried, watch, num_workers=num_workers)
        prediction = predict(
            kinds_tried,
            num_rows=kinds.num_rows,
            num_texts=kinds.num_texts,
            num_audits=num_audits * kinds.num_rows / num_rows,
            load=load,
            num_workers=num_workers,
            num_cores=num_cores,
            price=job.budget.price,
            gpus_per_worker=job.fleet.paid_gpus,
        )
        placements = compare_placements(setup, next(tried[0].sample()), watch)
        predictions.append(replace(prediction, placements=placements))
    joined = in_turn(predictions)
    return replace(joined, elapsed_s=joined.elapsed_s + starts_s, start_s=joined.start_s + starts_s)


def starting_s(imports: Took, *, is_forked: bool, num_cores: int) -> float:
    """Return the seconds until a worker can load a model.

    is_forked: workers are forks of one process, which imports libraries while Ray starts.
    """
    if not is_forked:
        return COMMAND_S + RAY.wall_s + imports.wall_s
    return COMMAND_S + max(RAY.wall_s, imports.wall_s, (RAY + imports).cpu_s / num_cores)


def time_imports(*, threads: int) -> Took:
    """Import a worker's libraries in a new process, and return the time it took."""
    before, began = _cpu_s(), time.perf_counter()
    subprocess.run(
        python("-c", f"from {server.__name__} import import_all; import_all()"),
        env=environment_of_imports(threads=threads),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # warnings of libraries; workers log them anyway
        check=True,
    )
    return Took(wall_s=time.perf_counter() - began, cpu_s=_cpu_s() - before)


def _cpu_s() -> float:
    """Return the processor time of this process's children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
