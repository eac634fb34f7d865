"""Requests in, clips out, as they finish: the renderer of one process and one model, without Ray."""

from __future__ import annotations

import copy
import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from framefleet.pipeline.errors import OutOfMemory, RecipeError
from framefleet.pipeline.hooks.adapters import working_on
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.memory import free_memory, is_out_of_memory, peak_memory_bytes
from framefleet.pipeline.model.loras.asked import adapters_in, without_loras
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.options.attention import AttentionChanged
from framefleet.pipeline.model.options.step_cache import StepCache
from framefleet.pipeline.model.specs.schedulers import build, resolve_scheduler
from framefleet.pipeline.outputs.frames import Frames, frames_sha256, to_frames
from framefleet.pipeline.outputs.store import Store
from framefleet.pipeline.recipes.called import spec_for
from framefleet.pipeline.recipes.recipe import BUILT_IN, Recipe, find_recipe
from framefleet.pipeline.recipes.second_model import Declared, SecondModels, open_second_models
from framefleet.pipeline.render.clips import Clip, Failure, Outcome
from framefleet.pipeline.render.encoders.text_encoders import Encoders
from framefleet.pipeline.render.fused.batcher import Batcher, RowTask
from framefleet.pipeline.render.fused.forwards import Batching, Forwards
from framefleet.pipeline.render.lora_layers import LoraLayers
from framefleet.pipeline.request import Request, is_input
from framefleet.pipeline.rows.identity import row_id
from framefleet.pipeline.rows.inputs.access import Inputs
from framefleet.pipeline.rows.inputs.opened import open_arguments
from framefleet.pipeline.rows.inputs.read_ahead import ReadAhead
from framefleet.pipeline.rows.inputs.survey import InputIndex
from framefleet.pipeline.rows.tables.checked import checked


class Renderer:
    """Renders requests with one model; rows share forwards and keep their bits.

    Not for several threads at once, nor for two renderers of one model at once.
    """

    def __init__(
        self,
        model: Model,
        batching: Batching | None = None,
        *,
        recipes: Mapping[str, Recipe] | None = None,
        inputs: Inputs | None = None,
        embeddings: Store | None = None,
        second_models: Mapping[str, Declared] | None = None,
    ) -> None:
        """recipes: all that requests may name beside framefleet's own; without it they may name any
        `module:function`, which is then imported.

        inputs: where images and videos may lie; without it on this machine and at public URLs.

        embeddings: where outputs of text encoders are kept; the encoders are then on the GPU only while
        they are called, until `render` ends or `cancel` brings them back.

        second_models: by the names that requests give them, each a path or a mapping with the fields of
        `ModelSettings`; the one that was used last is kept on the GPU.
        """
        self.model = model
        self.batching = batching or Batching()
        cache = model.settings.options.cache
        self._cache = StepCache(cache, model.denoisers()) if cache else None
        self._recipes = dict(recipes or {})
        self._may_import = recipes is None
        self._learn_anew()
        self._inputs = inputs or Inputs([os.getcwd(), os.sep])
        self._finder = InputIndex(self._inputs)
        self._ahead = ReadAhead(self._inputs.read)
        self._loras = LoraLayers(model.networks() if model.settings.loras else {})
        self._encoders = Encoders(model, self._loras, mode=self.batching.mode, kept_in=embeddings)
        self._second_models = SecondModels(
            open_second_models(second_models or {}),
            device=model.environment["device"],
            threads=model.settings.threads,
        )
        self._rows: dict[RowTask, _Row] = {}
        self._waiting: deque[_Row] = deque()
        self._retry_alone: deque[_Row] = deque()  # memory ran out beside others

    @property
    def num_active(self) -> int:
        """Rows submitted and not yet returned."""
        return len(self._rows) + len(self._waiting) + len(self._retry_alone)

    @property
    def capacity(self) -> int:
        """Rows worth having under way at once.

        Where larger forwards do not pay, one: rows that took turns would all be lost in a crash. Else twice
        those of a forward, so that forwards fill though rows of several kinds are mixed. A step cache would
        couple rows: one.
        """
        if self._cache:
            return 1
        reach = min(self._batcher.reach, self.batching.max_rows)
        return 1 if reach == 1 else 2 * reach

    def render(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        """Yield a Clip or a Failure for each request, in the order they finish.

        Requests are taken as there is room, so an endless generator is fine. Raises TableError for a request
        that the model cannot render as asked. Rows that are under way when the caller stops are forgotten.
        """
        source = enumerate(requests)
        is_open = True
        try:
            while is_open or self.num_active:
                while is_open and self.num_active < self.capacity:
                    index, request = next(source, (-1, None))
                    if request is None:
                        is_open = False
                    else:
                        self._check_and_submit(request, index)
                yield from self.step()
        finally:
            self.cancel()

    def _check_and_submit(self, request: Request, index: int) -> None:
        recipe = self._recipe(request.recipe)
        request = checked(
            request,
            self.model.spec,
            recipe,
            finder=self._finder,
            loras=self.model.settings.loras,
            second_models=self._second_models.declared,
            index=index,
        )
        self.submit(request, self._identify(request))

    def submit(self, request: Request, row_id: str) -> None:
        """Take a request that was checked already."""
        self.read_ahead(request)
        self._waiting.append(_Row(row_id, request))

    def read_ahead(self, request: Request) -> None:
        """Begin to read the images and videos of a request that will come. From any thread."""
        for value in request.arguments.values():
            if is_input(value):
                self._ahead.start(value["uri"])

    def step(self) -> list[Outcome]:
        """Take every row to its next forward; return the rows that ended on the way."""
        self._admit()
        with ExitStack() as stack, intercept(self._loras.layers, self._loras):
            stack.callback(self._encoders.leave)
            stack.enter_context(intercept(self.model.text_encoders(), self._encode))
            vae = getattr(self.model.pipe, "vae", None)
            stack.enter_context(intercept({"vae": vae} if vae else {}, self._decode, method="decode"))
            try:
                finished = self._batcher.step(stack)
            except AttentionChanged:
                self._begin_again()
                return []
        ended = [(task, self._rows.pop(task)) for task in finished]
        return [outcome for task, row in ended if (outcome := self._outcome(task, row)) is not None]

    def cancel(self) -> None:
        """Forget all rows."""
        self._drop_rows()
        self._encoders.bring()
        self._waiting.clear()
        self._retry_alone.clear()

    def _identify(self, request: Request) -> str:
        return row_id(
            request,
            model_digest=self.model.digest,
            numerics=self.model.settings.numerics(self.batching.mode),
            recipe_digest=self._recipe(request.recipe).digest,
        )

    def _admit(self) -> None:
        if self._retry_alone and not self._rows:
            self._start(self._retry_alone.popleft(), is_alone=True)
        if self._retry_alone or any(row.is_alone for row in self._rows.values()):
            return
        while self._waiting and len(self._rows) < self.capacity:
            self._start(self._waiting.popleft(), is_alone=False)

    def _start(self, row: _Row, *, is_alone: bool) -> None:
        row.is_alone = is_alone
        if self._cache:  # here, and not in the row's own code: its hooks go below the batcher's
            steps = row.request.arguments.get("num_inference_steps", 1)
            self._cache.start(steps=steps, pipe=lambda: row.pipe)
        self._rows[self._batcher.start(partial(self._render_row, row))] = row

    def _begin_again(self) -> None:
        """Take rows under way from their start: each is to be of one attention backend."""
        rows = list(self._rows.values())
        self._drop_rows()
        self._learn_anew()
        for row in reversed(rows):
            queue = self._retry_alone if row.is_alone else self._waiting
            queue.appendleft(_Row(row.row_id, row.request))

    def _drop_rows(self) -> None:
        self._batcher.cancel()
        self._rows.clear()
        if self._cache:
            self._cache.stop()

    def _learn_anew(self) -> None:
        """Forget which sizes pay and are exact."""
        self.forwards = Forwards(self.model.denoisers(), self.batching, self.model.attention)
        self._batcher = Batcher(self.forwards)

    def _render_row(self, row: _Row) -> Frames:
        pipe = row.pipe = copy.copy(self.model.pipe)  # pipelines keep the state of a call on themselves
        choice = resolve_scheduler(row.request.scheduler, self.model.spec)
        pipe.scheduler = build(choice, self.model.pipe.scheduler)
        arguments = row.request.arguments
        opened = open_arguments(
            self._second_models.opened(without_loras(arguments)),
            self._ahead.read,
            max_frames=self._frames_needed(row.request),
        )
        with working_on([adapters_in(arguments)]):
            return to_frames(
                self._recipe(row.request.recipe).render(pipe, replace(row.request, arguments=opened))
            )

    def _frames_needed(self, request: Request) -> int | None:
        """Return how many frames of a video a row reads, where it does not read all."""
        if request.recipe != "video_to_video":
            return None
        called = spec_for(self._recipe(request.recipe), self.model.spec)
        return None if "num_frames" in called.parameters else request.arguments.get("num_frames")

    def _recipe(self, name: str) -> Recipe:
        if name not in self._recipes:
            if not self._may_import and name not in BUILT_IN:
                raise RecipeError(f"recipe {name!r} is not one of this renderer's", "give it as `recipes`")
            self._recipes[name] = find_recipe(name)
        return self._recipes[name]

    def _encode(self, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self._measured("encode_s", self._encoders, name, forward, *args, **kwargs)

    def _decode(self, name: str, decode: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self._measured("decode_s", decode, *args, **kwargs)

    def _measured(self, key: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            row = self._current_row()
            if row is not None:
                row.seconds[key] = row.seconds.get(key, 0.0) + time.perf_counter() - started

    def _current_row(self) -> _Row | None:
        task = self._batcher.current
        return self._rows.get(task) if task else None

    def _outcome(self, task: RowTask, row: _Row) -> Outcome | None:
        if self._cache:
            self._cache.stop()
        error = task.error
        if error is None:
            return _clip(task, row, self._environment())
        text = "".join(traceback.format_exception(error))
        _drop_frames(error)
        if is_out_of_memory(error):
            free_memory()
            if not row.is_alone:
                self._retry_alone.append(row)
                return None
            error = OutOfMemory(
                f"one row alone does not fit: {error}",
                "render smaller, or shorter, or in bf16; or set model.offload or model.vae_tiling",
            )
        return Failure(row_id=row.row_id, request=row.request, error=error, traceback=text)

    def _environment(self) -> dict[str, Any]:
        attention = self.model.attention
        return {**self.model.environment, **({"attention": attention.name} if attention else {})}


class _Row:
    def __init__(self, row_id: str, request: Request) -> None:
        self.row_id = row_id
        self.request = request
        self.seconds: dict[str, float] = {}
        self.is_alone = False
        self.pipe: Any = None


def _drop_frames(error: BaseException | None) -> None:
    """Forget the frames of an error and of those behind it: they hold the row's tensors."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _clip(task: RowTask, row: _Row, environment: Mapping[str, Any]) -> Clip:
    seconds = {"encode_s": 0.0, "decode_s": 0.0, "denoise_s": task.last_forward_at - task.first_forward_at}
    return Clip(
        row_id=row.row_id,
        request=row.request,
        frames=task.value,
        frames_sha256=frames_sha256(task.value),
        seconds=seconds | row.seconds,
        batch_size=task.batch_size,
        peak_memory_bytes=peak_memory_bytes(),
        environment=environment,
    )
