"""The sandbox that probes rows: a model's folder of configs and a request in; what its pipeline says out.

What a config makes networks do, or a size makes a pipeline reserve, ends this process and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from framefleet.pipeline.errors import FramefleetError
from framefleet.pipeline.guards.sandbox import bound_memory, serve

# More than the process has with its libraries. The largest tensors are latents and the pictures that a row
# starts from; networks take no memory.
MAX_BYTES = 16 << 30
# Of errors that a worker does not meet: values of tensors that have none, and memory that is bounded here.
_LIMITS = ("meta tensor", "device meta", "Meta tensor", "allocate memory")


def main() -> None:
    serve(_answer)


def _answer(connection: Connection) -> None:
    """Answer one request: null where the pipeline takes it, else what is said against it, and by whom."""
    asked = json.loads(connection.recv_bytes())
    answer = None
    try:
        _probe(asked["folder"], tuple(asked["files"]), asked["request"])
    except FramefleetError as error:  # of ours: a recipe, a scheduler
        answer = {"said": str(error), "is_limit": False}
    except MemoryError:
        answer = {"said": f"it takes more than {MAX_BYTES >> 30} GiB", "is_limit": True}
    except Exception as error:  # a pipeline's own, of any class
        said = f"{type(error).__name__}: {error}"
        is_limit = isinstance(error, NotImplementedError) or any(word in said for word in _LIMITS)
        answer = {"said": said, "is_limit": is_limit}
    connection.send_bytes(json.dumps(answer).encode())


def _probe(folder: str, files: tuple[str, ...], wanted: Mapping[str, Any]) -> None:
    """Call the row's recipe up to the first decoded latents. Raises whatever it raises."""
    import torch

    from framefleet.pipeline.model.specs.schedulers import schedulers_of
    from framefleet.pipeline.recipes.recipe import find_recipe
    from framefleet.pipeline.render.probe.stub_networks import Decoded
    from framefleet.pipeline.request import Request

    spec, pipelines, own = _opened(folder, files)
    request = Request(**{**wanted, "arguments": _given(spec.from_json(wanted["arguments"]), own)})
    try:
        with torch.no_grad():
            pipe = pipelines.make(**schedulers_of(own, request.scheduler, spec))
            find_recipe(request.recipe).render(pipe, request)
    except Decoded:
        pass


@cache
def _opened(folder: str, files: tuple[str, ...]) -> Any:
    """Return the model's spec, its pipeline over hollow networks, and that itself."""
    from framefleet.pipeline.model.own_pipeline import OwnPipelines
    from framefleet.pipeline.model.sources.assembly import blank_pipeline
    from framefleet.pipeline.model.sources.components import components_in
    from framefleet.pipeline.model.specs.spec import inspect_model
    from framefleet.pipeline.render.probe.stub_networks import hollow

    spec, components = inspect_model(folder), components_in(Path(folder))
    bound_memory(MAX_BYTES)  # before networks are made: buffers are as large as a config says
    pipe = blank_pipeline(Path(folder), files, components, spec)
    pipe.set_progress_bar_config(disable=True)
    hollow(pipe)
    return spec, OwnPipelines(pipe), pipe


def _given(arguments: Mapping[str, Any], pipe: Any) -> dict[str, Any]:
    """Return a row's arguments with grey pictures for those that it names, of the size that it asks for."""
    from framefleet.pipeline.model.ip_adapter import IP_ADAPTER_IMAGE
    from framefleet.pipeline.model.lora import without_loras
    from framefleet.pipeline.model.specs.signature import references_of
    from framefleet.pipeline.render.probe.stub_networks import grey, grey_reference
    from framefleet.pipeline.request import each_input

    size, classes = (arguments.get("width") or 512, arguments.get("height") or 512), references_of(pipe)
    plain = without_loras(arguments)
    plain.pop(IP_ADAPTER_IMAGE, None)  # the networks here are the pipeline's own

    def opened(name: str, value: Mapping[str, Any]) -> Any:
        is_reference = name in classes
        return grey_reference(classes[name][value["kind"]], size) if is_reference else grey(value, size)

    return {name: each_input(value, partial(opened, name)) for name, value in plain.items()}


if __name__ == "__main__":
    main()
