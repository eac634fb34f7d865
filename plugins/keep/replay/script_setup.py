"""Write the lines with which a script sets up its pipeline for a model's options, as workers do."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from framefleet.pipeline.model.options import offload, step_cache
from framefleet.pipeline.model.options.pipe_calls import DIFFUSERS, New, PipeCall
from framefleet.pipeline.model.options.schema import GroupOffload, Options
from framefleet.pipeline.model.options.tuning import (
    compile_calls,
    denoisers_in,
    quantization_config,
    weight_calls,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Code that sets up a pipeline."""

    quantization: str  # argument for loading the weights
    lines: Sequence[str]  # after loading
    modules: Collection[str]  # to import
    classes: Collection[str]  # to import from diffusers


def script_setup(options: Options, libraries: Mapping[str, str], *, device: str, steps: int) -> Setup:
    denoisers = denoisers_in(libraries)
    quantized = quantization_config(options, libraries)
    first = weight_calls(options, libraries)
    if isinstance(group := options.offload, GroupOffload):
        folders = dict.fromkeys(denoisers, offload.OWN_FOLDER) if group.disk else {}
        first += offload.group_calls(group, libraries, device=device, denoisers=denoisers, folders=folders)
    elif options.offload:  # one row at a time, so diffusers' own hooks suffice
        first.append(PipeCall(method="enable_model_cpu_offload", arguments={"device": device}))
    last = compile_calls(options, denoisers)
    if options.cache:
        last += [step_cache.enabling(options.cache, name, steps=steps) for name in denoisers]
    placing = [] if options.offload else [f"pipe.to({device!r})"]
    backend = []
    if options.attention:
        backend = [
            "with attention_backend():  # the next call changes the default of the process; this resets it",
            *(f"    pipe.{name}.set_attention_backend({options.attention!r})" for name in denoisers),
        ]
    lines = [*map(str, first), *placing, *backend, *map(str, last)]
    needed = set(_imports([quantized, *first, *last]))
    modules = {module for module, _ in needed} - {DIFFUSERS}
    return Setup(
        quantization=str(quantized) if quantized else "",
        lines=lines,
        modules=modules | {"tempfile"} if any(offload.OWN_FOLDER in line for line in lines) else modules,
        classes={name for _, name in needed if name} | ({"attention_backend"} if backend else set()),
    )


def _imports(values: Any) -> Iterator[tuple[str, str]]:
    """Yield what a script must import: (diffusers, name), or (another module, "")."""
    if isinstance(values, New):
        yield (values.module, values.name if values.module == DIFFUSERS else "")
    elif isinstance(values, PipeCall) and values.module:
        yield values.module, ""
    inner = values.arguments if isinstance(values, New | PipeCall) else values
    for value in inner.values() if isinstance(inner, Mapping) else inner if isinstance(inner, list) else ():
        yield from _imports(value)
