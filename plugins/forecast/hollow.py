"""From rows of distinct shapes to those that the model's pipeline refuses or fails on when it is called.

Sizes and lengths are known by rules (model/specs/source_facts.py, rows/tables/limits.py); what no rule says
shows when the pipeline itself is called, over networks without weights. That is done in a sandbox, which runs
this file: what a config makes networks do, or a size makes a pipeline reserve, ends that process and nothing
else.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from framefleet.jobs.plan.plan import Probed
from framefleet.pipeline.errors import FramefleetError
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.guards.redaction import public_text
from framefleet.pipeline.guards.sandbox import Ended, Sandbox, bound_memory, serve
from framefleet.pipeline.model.specs.refusal import shown
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.render.input_shapes import Shapes, decides_shape
from framefleet.pipeline.request import Request, is_model

MAX_ALL_S = 900.0
MAX_SILENCE_S = 180.0  # of one shape; the first one waits for imports and networks, half a minute
_MAX_TEXT = 300  # characters
# More than the process has with its libraries. The largest tensors are latents and the pictures that a row
# starts from; networks take no memory.
MAX_BYTES = 16 << 30
# Of errors that a worker does not meet: values of tensors that have none, and memory that is bounded here.
_LIMITS = ("meta tensor", "device meta", "Meta tensor", "allocate memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """An objection to a row. is_limit: the probe itself cannot tell; else the pipeline objects."""

    text: str
    is_limit: bool = False


def probe_shapes(shapes: Shapes, spec: PipelineSpec, folder: Path, files: Sequence[str]) -> Probed:
    """Call the pipeline once for each shape. folder: holds the model's configs, which are `files`."""
    probed = list(_probed(shapes, spec, _Prober(folder, files)))
    others = [f"{shapes.num_others:,} rows of further shapes were not probed"] if shapes.num_others else []
    return Probed(
        refused=tuple(one for one in probed if isinstance(one, tuple)),
        unknown=tuple(dict.fromkeys([one for one in probed if isinstance(one, str)] + others)),
    )


def _probed(shapes: Shapes, spec: PipelineSpec, prober: _Prober) -> Iterator[tuple[str, str] | str]:
    """Yield (problem, fix) of a shape that is refused, or a line on one that cannot be probed."""
    started = time.monotonic()
    with closing(prober):
        for position, (index, request) in enumerate(shapes.first.values()):
            if time.monotonic() - started > MAX_ALL_S:
                left = len(shapes.first) - position
                yield f"{left} shapes were not probed: all take more than {MAX_ALL_S:.0f} s"
                return
            models = [name for name, value in request.arguments.items() if is_model(value)]
            if models:
                yield f"row {index} cannot be probed: it calls a second model, its {models[0]}"
            elif objection := prober.objection(request):
                # The row with the model's own values for all that decides shapes.
                defaults = spec.defaults()
                arguments = {
                    name: value for name, value in request.arguments.items() if not decides_shape(value)
                }
                own = replace(
                    request, arguments=arguments | {n: v for n, v in defaults.items() if decides_shape(v)}
                )
                alone = not objection.is_limit and prober.objection(own) is None
                why = "" if objection.is_limit else "even with the model's own values the pipeline fails: "
                unknown = f"row {index} cannot be probed: {why}{objection.text}"
                yield _refusal(index, request, own, objection.text) if alone else unknown


def _refusal(index: int, request: Request, own: Request, said: str) -> tuple[str, str]:
    """Return what is wrong with a row, if the same row with the model's own values is fine."""
    differing = {name: value for name, value in request.arguments.items() if value != own.arguments.get(name)}
    current = [f"{name} {own.arguments[name]}" for name in differing if name in own.arguments]
    others = [name for name in differing if name not in own.arguments]
    fix = [f"use {', '.join(current)}"] * bool(current) + [f"leave out {', '.join(others)}"] * bool(others)
    wanted = ", ".join(f"{name} {shown(value)}" for name, value in differing.items())
    return f"row {index}: with {wanted}, the pipeline says: {said}", ", and ".join(fix)


class _Prober:
    """Asks the sandbox, which is started when it is needed, and again after a row ended it."""

    def __init__(self, folder: Path, files: Sequence[str]) -> None:
        self._model = {"folder": str(folder), "files": [*files]}
        self._box: Sandbox | None = None
        self._known: dict[str, Objection | None] = {}

    def objection(self, request: Request) -> Objection | None:
        """Return the objection to a row, or None."""
        question = canonical_json(
            self._model
            | {
                "request": {
                    "arguments": dict(request.arguments),
                    "seed": request.seed,
                    "scheduler": request.scheduler,
                    "recipe": request.recipe,
                }
            }
        )
        if question not in self._known:
            self._known[question] = self._ask(question.encode())
        return self._known[question]

    def _ask(self, asked: bytes) -> Objection | None:
        self._box = self._box or Sandbox(__name__, max_silence_s=MAX_SILENCE_S)
        try:
            self._box.send(asked)
            answer = json.loads(self._box.receive())
        except Ended as error:
            self.close()
            return Objection(text=str(error), is_limit=True)
        if answer is None:
            return None
        text = public_text(" ".join(answer["said"].split()))[:_MAX_TEXT]
        return Objection(text=text, is_limit=answer["is_limit"])

    def close(self) -> None:
        if self._box:
            self._box.end()
        self._box = None


def _answer(connection: Connection) -> None:
    """Answer one request: null if the pipeline takes it, else the objection, and whose it is."""
    question = json.loads(connection.recv_bytes())
    answer = None
    try:
        _probe(question["folder"], tuple(question["files"]), question["request"])
    except FramefleetError as error:  # of ours: a recipe, a scheduler
        answer = {"said": str(error), "is_limit": False}
    except MemoryError:
        answer = {"said": f"it takes more than {MAX_BYTES >> 30} GiB", "is_limit": True}
    except Exception as error:  # a pipeline's own, of any class
        message = f"{type(error).__name__}: {error}"
        is_limit = isinstance(error, NotImplementedError) or any(word in message for word in _LIMITS)
        answer = {"said": message, "is_limit": is_limit}
    connection.send_bytes(json.dumps(answer).encode())


def _probe(folder: str, files: tuple[str, ...], wanted: Mapping[str, Any]) -> None:
    """Call the row's recipe up to the first decoded latents. Raises whatever it raises."""
    import torch

    from framefleet.pipeline.model.specs.schedulers import schedulers_of
    from framefleet.pipeline.recipes.recipe import find_recipe
    from framefleet.pipeline.request import Request
    from framefleet.plugins.forecast.stub_networks import Decoded

    spec, pipelines, own = _opened(folder, files)
    request = Request(**{**wanted, "arguments": _stand_ins(spec.from_json(wanted["arguments"]), own)})
    try:
        with torch.no_grad():
            pipe = pipelines.make(**schedulers_of(own, request.scheduler, spec))
            find_recipe(request.recipe).render(pipe, request)
    except Decoded:
        pass


@cache
def _opened(folder: str, files: tuple[str, ...]) -> Any:
    """Return the model's spec, copies of its pipeline over hollow networks, and that pipeline."""
    from framefleet.pipeline.model.own_pipeline import OwnPipelines
    from framefleet.pipeline.model.sources.assembly import blank_pipeline
    from framefleet.pipeline.model.sources.components import components_in
    from framefleet.pipeline.model.specs.spec import inspect_model
    from framefleet.plugins.forecast.stub_networks import hollow

    spec, components = inspect_model(folder), components_in(Path(folder))
    bound_memory(MAX_BYTES)  # before networks are made: buffers are as large as a config says
    pipe = blank_pipeline(Path(folder), files, components, spec)
    pipe.set_progress_bar_config(disable=True)
    hollow(pipe)
    return spec, OwnPipelines(pipe), pipe


def _stand_ins(arguments: Mapping[str, Any], pipe: Any) -> dict[str, Any]:
    """Return a row's arguments with grey pictures for those that it names, of the size that it asks for."""
    from framefleet.pipeline.model.ip_adapter import IP_ADAPTER_IMAGE
    from framefleet.pipeline.model.lora import without_loras
    from framefleet.pipeline.model.specs.signature import references_of
    from framefleet.pipeline.request import each_input
    from framefleet.plugins.forecast.stub_networks import grey, grey_reference

    size, classes = (arguments.get("width") or 512, arguments.get("height") or 512), references_of(pipe)
    plain = without_loras(arguments)
    plain.pop(IP_ADAPTER_IMAGE, None)  # the networks here are the pipeline's own

    def opened(name: str, value: Mapping[str, Any]) -> Any:
        is_reference = name in classes
        return grey_reference(classes[name][value["kind"]], size) if is_reference else grey(value, size)

    return {name: each_input(value, partial(opened, name)) for name, value in plain.items()}


if __name__ == "__main__":
    serve(_answer)
