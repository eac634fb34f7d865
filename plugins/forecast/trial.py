"""From a job to what its rows take here: a worker's renderer gets some of each kind, until it has its pace.

Rows are rendered as a worker renders them, batched. Which sizes of forwards pay and are exact is kept on
this machine, as a run keeps it; a renderer that had to find it out is not the one that is timed. No clip is
stored.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from framefleet.cluster.worker.messages import WorkerSetup
from framefleet.jobs.show.watch import Watch, wait_for
from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.model.load import load
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.outputs.clips import Clip
from framefleet.pipeline.outputs.encode_clip import encode_clip
from framefleet.pipeline.render.renderer import Renderer
from framefleet.pipeline.request import MAX_SEED
from framefleet.pipeline.rows.identity import Identity
from framefleet.plugins.forecast.prediction import RowKind, Took, Tried, calls_of

MAX_TRIED = 16  # further ones are taken as these: a table of a size for each row has no end
NEW = 0.1  # of the longest time that a text took: what takes less was remembered


def try_rows(
    setup: WorkerSetup, identity: Identity, kinds: Sequence[RowKind], watch: Watch, *, num_workers: int
) -> tuple[Took, list[Tried]]:
    """Render rows of each kind; return what loading the model took, and what rows of each kind took.

    The model may be in the page cache. Raises what loading it raises, and RenderError where a row fails.

    num_workers: that the table's rows are shared by: a kind of few rows has smaller batches.
    """
    wait_for(watch, "loading the model")
    clock = _Clock()
    model = load(setup.model, setup.model_files)
    loaded = clock.lap()
    tried = []
    for kind in kinds:
        wait_for(watch, f"rendering rows of {kind.name}")
        most = -(-kind.num_rows // num_workers)
        tried.append(_Stream(model, setup, identity, kind, most=most).measure())
    return loaded, tried


class _Clock:
    """Both kinds of seconds since the last look."""

    def __init__(self) -> None:
        self._since = self._now()

    def lap(self) -> Took:
        before, self._since = self._since, self._now()
        return self._since - before

    @staticmethod
    def _now() -> Took:
        return Took(wall_s=time.perf_counter(), cpu_s=time.process_time())


class _Stream:
    """Rows of one kind that go through a renderer without end. most: that are under way at once."""

    def __init__(
        self, model: Model, setup: WorkerSetup, identity: Identity, kind: RowKind, *, most: int
    ) -> None:
        self._model, self._setup, self._identity, self._kind = model, setup, identity, kind
        self._most = most
        self._is_first = True
        self._rows = (  # of the table's proportions, each with a seed of its own
            replace(request, seed=(request.seed + number) % MAX_SEED)
            for number, request in enumerate(kind.sample())
        )

    def measure(self) -> Tried:
        """Time a worker's first rows, and then those at its pace."""
        renderer, clock = self._renderer(), _Clock()
        first, begun = self._window(renderer, clock)
        if renderer.capacity > 1 and not renderer.num_remembered:
            renderer.cancel()  # it had to find out which sizes pay, which the run's workers read from disk
            renderer, clock = self._renderer(), _Clock()
            first, begun = self._window(renderer, clock)
        seconds = max((audited.seconds for audited in renderer.take_audits()), default=0.0)
        audit = begun * min(1.0, seconds / begun.wall_s)
        then, pace = self._window(renderer, clock)
        renderer.cancel()
        write, num_bytes = self._written(then)
        calls = self._kind.num_calls / self._kind.num_rows
        render = (pace - _encoding(then, pace)) * (calls / sum(calls_of(clip.request) for clip in then))
        of_first = render * (sum(calls_of(clip.request) for clip in first) / calls)
        return Tried(
            name=self._kind.name,
            num_rows=self._kind.num_rows,
            render=render,
            write=write,
            once=begun - _encoding(first, begun) - of_first - audit,
            audit=audit,
            text=_text(first, begun),
            num_bytes=num_bytes,
            mean_batch=sum(clip.batch_size for clip in then) / len(then),
            num_rendered=len(first) + len(then),
        )

    def _renderer(self) -> Renderer:
        """Return one that audits its first row, to time that."""
        setup, self._is_first = self._setup, True
        return Renderer(
            self._model,
            setup.batching,
            recipes=setup.recipes,
            inputs=setup.inputs,
            second_models=setup.second_models,
            audit=setup.audit,
        )

    def _window(self, renderer: Renderer, clock: _Clock) -> tuple[list[Clip], Took]:
        """Return as many clips as are under way at once, and what they took. RenderError for a failed row."""
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
                        "render it by itself to see more, or correct it",
                    )
                ended.append(outcome)
            if self._room(renderer) == 1 < renderer.num_active and not ended:
                # Batching does not pay: the rows that were begun would take turns for minutes.
                self._most = 1
                renderer.cancel()
                clock.lap()
        return ended, clock.lap()

    def _room(self, renderer: Renderer) -> int:
        return max(1, min(renderer.capacity, self._most))

    def _written(self, clips: Sequence[Clip]) -> tuple[Took, float]:
        """Return what making a file of one takes, and its bytes."""
        clock = _Clock()
        # Whoever plans need not have the keys that workers sign with.
        steps = [step for one in self._setup.steps.values() if (step := one.repeatable())]
        sizes = [len(encode_clip(clip, self._setup.media, steps).content) for clip in clips]
        return clock.lap() * (1 / len(clips)), sum(sizes) / len(clips)


def _encoding(clips: Sequence[Clip], took: Took) -> Took:
    """Return how much of what clips took is of their texts."""
    return took * min(1.0, sum(clip.seconds["encode_s"] for clip in clips) / took.wall_s)


def _text(clips: Sequence[Clip], took: Took) -> Took:
    """Return what a text takes that is new: those of other rows are remembered, and take no time."""
    seconds = sorted(clip.seconds["encode_s"] for clip in clips)
    new = [one for one in seconds if one >= seconds[-1] * NEW]
    return took * (new[len(new) // 2] / took.wall_s)
