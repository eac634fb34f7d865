"""In: a request. Out: its rehearsal, which is one step of it, and the name under which its memory is kept.

Imports no torch: `plan` reads what a worker measured.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from math import ceil

from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.model.settings import ModelSettings
from framefleet.pipeline.model.specs.dtypes import asked
from framefleet.pipeline.render.probe.probe import input_shape
from framefleet.pipeline.request import Request

_STEP_LISTS = ("timesteps", "sigmas")


def rehearsed(request: Request) -> Request:
    """Return the request with a single step; with `strength` as many as leave one."""
    arguments = {name: value for name, value in request.arguments.items() if name not in _STEP_LISTS}
    if "num_inference_steps" in arguments:
        arguments["num_inference_steps"] = ceil(1 / (arguments.get("strength") or 1))
    return replace(request, arguments=arguments)


def memory_name(model_digest: str, settings: ModelSettings, request: Request) -> str:
    """Return what the memory of a rehearsal is kept as, see `Places`: by model, options and shape."""
    options = settings.options.model_dump(mode="json")
    said = [model_digest, asked(settings.dtype), options, input_shape(request)]
    return f"memory/{hashlib.sha256(canonical_json(said).encode()).hexdigest()[:32]}"
