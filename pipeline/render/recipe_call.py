"""In: a row. Out: all that its recipe returns, called on a copy of the pipeline.

What recipes do after their last look at their frames: learned from one row, then done on a thread.

A row's look is a call of a processor of its pipeline that makes an array. Later rows go away (`RowThread`) at
the look that was the first row's last. Recipes that call a network or draw from global generators after it
stay where they are.
"""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import greenlet
from diffusers.image_processor import VaeImageProcessor
from diffusers.video_processor import VideoProcessor
from torch import Tensor, nn

from framefleet.pipeline.errors import RowError
from framefleet.pipeline.hooks.adapters import working_on
from framefleet.pipeline.hooks.global_draws import GlobalDraws
from framefleet.pipeline.hooks.intercept import Around
from framefleet.pipeline.hooks.process_state import PROCESS
from framefleet.pipeline.model.guardrail import CHANGED, changes_noted
from framefleet.pipeline.model.lora import without_loras
from framefleet.pipeline.model.model import Model
from framefleet.pipeline.model.own_pipeline import OwnPipelines, own_settings
from framefleet.pipeline.model.specs.schedulers import schedulers_of
from framefleet.pipeline.model.specs.signature import references_of
from framefleet.pipeline.outputs.frames import result
from framefleet.pipeline.outputs.frames.frames import LateFrames
from framefleet.pipeline.recipes.catalog import KnownRecipes
from framefleet.pipeline.recipes.recipe import frames_read
from framefleet.pipeline.recipes.second_model import AROUND_SIBLINGS, SecondModels
from framefleet.pipeline.render.clock import Clock
from framefleet.pipeline.render.fused.joint_calls import joint_at_work
from framefleet.pipeline.render.fused.row_thread import is_away, row_thread
from framefleet.pipeline.render.row_queue import RenderRow
from framefleet.pipeline.render.scheduler_steps import NO_KEEP, StepTrace
from framefleet.pipeline.request import Request, inputs_in
from framefleet.pipeline.rows.inputs.arguments import ReadAhead, open_arguments

# Rows that may be away at once: each holds its frames as floats.
_MAX_AWAY = 2


class Tails:
    def __init__(self, num_away: Callable[[], int], *, is_able: bool) -> None:
        """num_away: rows that are away now. is_able: whether rows may be at all."""
        self.num_away, self.is_able = num_away, is_able
        self.num_looks: dict[str, int] = {}  # by recipe; 0 of one whose rows stay

    def has_look(self, recipe: str) -> bool:
        """Whether a recipe's rows are known to look at frames, and may go away then."""
        return self.is_able and self.num_looks.get(recipe, 0) > 0

    def begin(self, recipe: str) -> RowTail:
        """Return what counts the looks of a row that starts."""
        return RowTail(self, recipe, self.num_looks.get(recipe))

    def unlearn(self, recipe: str) -> None:
        """Let a recipe's rows stay: one does something after its look that another does not."""
        self.num_looks[recipe] = 0


class RowTail:
    """The looks of one row."""

    def __init__(self, tails: Tails, recipe: str, num_expected: int | None) -> None:
        """num_expected: looks of a row of the recipe; None: that is to be learned."""
        self._tails, self._recipe, self._num_expected = tails, recipe, num_expected
        self._num_looks = 0
        self._draws = b""  # what would be drawn next, as it looked last
        self._has_ended = self._calls_later = False  # a network, after it looked last
        self.watch = ExitStack()  # held while the row's code runs

    def look(self) -> None:
        """The row's code looks at its frames."""
        if self._has_ended:
            return
        self._num_looks += 1
        if (thread := row_thread()) is None:
            if self._num_looks == 1 and self._tails.is_able and self._num_expected is None:
                mine = greenlet.getcurrent()

                def see(*_: object) -> None:
                    if greenlet.getcurrent() is mine:
                        self._calls_later = True

                # Not before: each call of each module is seen.
                self.watch.callback(nn.modules.module.register_module_forward_pre_hook(see).remove)
            self._draws, self._calls_later = GlobalDraws.now().mark(), False
        elif self._num_looks == self._num_expected and self._tails.num_away() < _MAX_AWAY:
            thread.go_away()

    def end(self) -> None:
        self._has_ended = True
        if row_thread() is None:
            stays = self._num_looks and (self._calls_later or self._draws != GlobalDraws.now().mark())
            self._tails.num_looks.setdefault(self._recipe, 0 if stays else self._num_looks)
        elif self._num_looks != self._num_expected:
            self._tails.unlearn(self._recipe)


# Methods of diffusers that rewrite prompts: `enhance_prompt` of LTX-2, `upsample_prompt` of Flux 2 and
# Ideogram, `expand_prompts` of Kandinsky 6, `_enhance_prompt_with_pe` of ERNIE-Image (0.42).
_WRITERS = re.compile(r"_?(enhance|upsample|expand|rewrite)_prompts?(_\w+)?")
# Building one takes milliseconds. Each takes tens of KB, and each row may have other settings.
_SCHEDULERS = 64
# By method, the number of dimensions of the tensor from which it makes a clip or image.
_METHODS = {"postprocess": 4, "postprocess_video": 5}


@dataclass(slots=True, eq=False)
class RecipeCall:
    """Calls the recipes of rows that were checked."""

    _model: Model
    _recipes: KnownRecipes
    _second_models: SecondModels
    _ahead: ReadAhead
    _clock: Clock
    _second_try: Around
    _keep: result.KeptSteps
    _tails: Tails
    _schedulers: Callable[[str | None], dict[str, OwnPipelines]] = field(init=False)  # by the row's name
    _pipelines: OwnPipelines = field(init=False)  # for each row: pipelines keep the state of a call

    def __post_init__(self) -> None:
        self._schedulers = last_schedulers(self._model)
        self._pipelines = OwnPipelines(self._model.pipe)

    def is_own(self, row: RenderRow) -> bool:
        """Whether a row's recipe is the function of whoever runs the job."""
        return self._recipes[row.request.recipe].is_own

    def read_ahead(self, request: Request) -> list[Future[bytes]]:
        """Begin to read the images and videos of a request that will come. From any thread."""
        parts = (part for value in request.arguments.values() for part in inputs_in(value))
        begun = (self._ahead.start(part["uri"]) for part in parts)
        return [read for read in begun if read]

    def __call__(self, row: RenderRow, pipelines: OwnPipelines | None = None) -> result.Rendered:
        """pipelines: copied for the row in place of the model's; then nothing is left for later."""
        model, request = self._model, row.request
        fresh = {name: one.make() for name, one in self._schedulers(request.scheduler).items()}
        recipe, trace = self._recipes[request.recipe], None
        if self._keep:
            if "scheduler" not in fresh:
                name = model.spec.class_name
                raise RowError(f"keep: {name} has no noise scheduler", NO_KEEP)
            trace = StepTrace(fresh["scheduler"], self._keep)
        is_ours = not pipelines and not recipe.is_own
        tokenizers = own_settings(model.pipe) if is_ours else {}  # people's own may change words as well
        pipe = row.pipe = (pipelines or self._pipelines).make(**fresh, **tokenizers)
        written, tail = note_written(pipe), None
        if trace and self._keep.text_embeddings:
            trace.note_texts(pipe)
        if not pipelines:
            tail = self._tails.begin(request.recipe)
            around = Looks(model.pipe, tail, are_late=is_ours)  # people's own get arrays
            around(pipe)
            setattr(pipe, AROUND_SIBLINGS, around)
        with self._clock.spending("inputs"):
            opened = open_arguments(
                self._second_models.opened(without_loras(request.arguments)),
                self._ahead.read,
                max_frames=frames_read(recipe, model.spec, request.arguments),
                mode=model.spec.picture_mode,
                references=references_of(model.pipe),
            )
        row.draws.seed(request.seed)  # after the models are loaded, whose networks draw weights
        process = PROCESS.preserved() if recipe.is_own else nullcontext()
        watch = tail.watch if tail else nullcontext()
        with working_on([row.adapters]), watch, process, changes_noted() as num_changed:
            whole = replace(request, arguments=opened)
            output = row.joint.output(pipe, request) if row.joint else recipe.render(pipe, whole)
        if tail:
            tail.end()  # before pixels are made: the row's code does not look at these
        rendered: result.Rendered = self._finish(result.to_rendered, output, pipe)
        noted: dict[str, Any] = {CHANGED: sum(num_changed)} if any(num_changed) else {}
        if texts := list(dict.fromkeys(written)):  # which the row may name itself
            noted[result.WRITTEN_PROMPT] = texts[0] if len(texts) == 1 else texts
        if noted:
            extras = replace(rendered.extras, values={**noted, **rendered.extras.values})
            rendered = replace(rendered, extras=extras)
        return self._finish(self._with_steps, rendered, trace) if trace else rendered

    def _finish(self, step: Callable[..., result.Rendered], *arguments: Any) -> result.Rendered:
        """Do what is left to do for a row; the clock and second tries are for the renderer's thread."""
        if is_away():
            return step(*arguments)
        with self._clock.spending("frames"):
            rendered: result.Rendered = self._second_try("frames", step, *arguments)
        return rendered

    def _with_steps(self, rendered: result.Rendered, trace: StepTrace) -> result.Rendered:
        """Add what is kept of a row's steps to what its pipeline returned."""
        extras = result.to_extras(trace.fields())
        values = result.unite_outputs(rendered.extras.values, {result.KEPT: self._keep.values()})
        arrays = result.unite_outputs(rendered.extras.arrays, extras.arrays)
        return replace(rendered, extras=result.Extras(arrays=arrays, values=values))


def last_schedulers(model: Model) -> Callable[[str | None], dict[str, OwnPipelines]]:
    """Return what makes a model's noise schedulers from a row's name for them, and remembers the last."""

    @lru_cache(_SCHEDULERS)
    def schedulers(name: str | None) -> dict[str, OwnPipelines]:
        built = schedulers_of(model.pipe, name, model.spec)
        return {component: OwnPipelines(one) for component, one in built.items()}

    return schedulers


def note_written(pipe: Any) -> list[str]:
    """Return a list to which calls of `pipe`, a row's own copy, add the prompts that they write."""
    written: list[str] = []

    def noted(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        answer = method(*args, **kwargs)
        texts = answer if isinstance(answer, list | tuple) else [answer]
        written.extend(text for text in texts if isinstance(text, str))
        return answer

    for name in filter(_WRITERS.fullmatch, dir(type(pipe))):
        method = getattr(pipe, name)
        if callable(method):
            setattr(pipe, name, partial(noted, method))
    return written


class Looks:
    """Put around the processors of a row's own pipelines, which make arrays of what was decoded."""

    def __init__(self, original: Any, tail: RowTail, *, are_late: bool) -> None:
        """original: whose processors are others' too. are_late: LateFrames stand for arrays."""
        self._shared = set(map(id, vars(original).values()))
        self._tail, self._are_late = tail, are_late

    def __call__(self, pipe: Any) -> None:
        of_video = VideoProcessor.postprocess_video
        for processor in vars(pipe).values():
            if not isinstance(processor, VaeImageProcessor) or id(processor) in self._shared:
                continue
            kind: Any = type(processor)  # whether it works as diffusers' own classes do
            is_plain = kind.postprocess is VaeImageProcessor.postprocess
            is_plain = is_plain and getattr(kind, "postprocess_video", of_video) is of_video
            for method, num_dimensions in _METHODS.items():
                if hasattr(processor, method):
                    original = getattr(processor, method)
                    late = partial(self._late, original, num_dimensions)
                    around = late if self._are_late and is_plain else partial(self._now, original)
                    setattr(processor, method, around)
        free = getattr(pipe, "maybe_free_model_hooks", None)
        if free and row_thread():  # it resets what another row may be using by now
            pipe.maybe_free_model_hooks = lambda: None if is_away() else free()

    def _now(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._tail.look()
        return original(*args, **kwargs)

    def _late(self, original: Callable[..., Any], num_dimensions: int, *args: Any, **kwargs: Any) -> Any:
        call = inspect.signature(original).bind(*args, **kwargs)
        call.apply_defaults()
        name = next(iter(call.arguments))
        images = call.arguments[name]
        num_rows = len(joint.requests) if (joint := joint_at_work()) else 1
        is_tensor = isinstance(images, Tensor) and images.is_floating_point() and images.numel() > 0
        is_kept = is_tensor and images.ndim == num_dimensions and images.shape[1] in (3, 4)
        if call.arguments["output_type"] != "np" or not is_kept or len(images) != num_rows:
            return self._now(original, *args, **kwargs)

        def late(row: int) -> LateFrames:
            own = inspect.BoundArguments(call.signature, OrderedDict(call.arguments))
            if flags := own.arguments.get("do_denormalize"):  # one for each row
                own.arguments["do_denormalize"] = flags[row : row + 1]

            def postprocess(part: Tensor, output_type: str) -> Any:
                if output_type == "np":
                    self._tail.look()
                own.arguments |= {name: part, "output_type": output_type}
                return original(*own.args, **own.kwargs)

            return LateFrames(images[row : row + 1], postprocess)

        return [late(row) for row in range(num_rows)] if joint else late(0)
