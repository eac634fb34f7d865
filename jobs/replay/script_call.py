"""From a pipeline's spec and a row's arguments to the lines of a script that load, guide and call it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from framefleet.pipeline.model.sources.components import Component
from framefleet.pipeline.model.specs.modular_index import is_modular
from framefleet.pipeline.model.specs.spec import PipelineSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptCall:
    """How one kind of pipeline is used. loading, guiders: lines. asked: of the call, beyond its arguments.

    frames: where they are in its output.
    """

    class_name: str
    loading: str
    arguments: Mapping[str, Any]
    frames: str
    guiders: str = ""
    asked: str = ""


def script_call(
    spec: PipelineSpec,
    arguments: Mapping[str, Any],
    components: Collection[Component],
    *,
    revision: str | None,
    dtype: str,
    is_safe: bool,
    quantization: str,
) -> ScriptCall:
    """dtype, quantization: as code. is_safe: weights come from safetensors only."""
    given = f", revision={revision!r}" if revision else ""
    modular, safe = is_modular(spec.class_name), is_safe or None
    networks = [component.name for component in components if component.has_weights]
    options = f"{given}, dtype={dtype}, use_safetensors={dict.fromkeys(networks, safe) if modular else safe}"
    if quantization:
        options += f", quantization_config={quantization}" + ".quant_mapping" * modular
    if modular:
        return _modular_call(spec, arguments, components, given=given, options=options)
    return ScriptCall(
        class_name=spec.class_name,
        loading=f"pipe = {spec.class_name}.from_pretrained(MODEL{options})",
        arguments=arguments,
        frames="output.images" if spec.kind == "image" else "output.frames[0]",
    )


def _modular_call(
    spec: PipelineSpec,
    arguments: Mapping[str, Any],
    components: Collection[Component],
    *,
    given: str,
    options: str,
) -> ScriptCall:
    """Exactly the model's own components are loaded, wherever its index says that they are."""
    from framefleet.pipeline.model.modular import SEEN, blank, guiding, medium, without_scales

    pipe, output = blank(spec.class_name, spec.configs), medium(spec.class_name) or ""
    names = [component.name for component in components]
    guiders = [
        f"pipe.update_components({name}=pipe.{name}.new({_named(changes)}))\n"
        for name, changes in guiding(pipe, arguments).items()
    ]
    return ScriptCall(
        class_name=spec.class_name,
        loading=f"pipe = {spec.class_name}.from_pretrained(MODEL{given})\n"
        f"pipe.load_components({names}, pretrained_model_name_or_path=MODEL{options})",
        arguments=without_scales(pipe, arguments),
        frames="output[0]" if SEEN[output] == "frames" else "output",
        guiders="".join(guiders),
        asked=f", output={output!r}",
    )


def _named(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
