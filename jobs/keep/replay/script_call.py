"""From a pipeline's spec and a row's arguments to the lines of a script that load, guide and call it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from framefleet.pipeline.model.sources.components import Component
from framefleet.pipeline.model.specs.model_index import is_modular
from framefleet.pipeline.model.specs.spec import PipelineSpec
from framefleet.pipeline.outputs.frames.fields import PICTURES, SOUND


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptCall:
    """How one kind of pipeline is used. loading, guiders: lines. frames, sound: of its output, as code."""

    class_name: str
    loading: str
    arguments: Mapping[str, Any]
    frames: str
    sound: str
    guiders: str = ""


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
    pictures = _pictures(spec)
    return ScriptCall(
        class_name=spec.class_name,
        loading=f"pipe = {spec.class_name}.from_pretrained(MODEL{options})",
        arguments=arguments,
        frames=f"output.{pictures}{_first(spec, pictures)}",
        sound=f"output.{_sound(spec)}",
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
    from framefleet.pipeline.model.modular import SEEN, blank, guiding, without_scales

    pipe, pictures = blank(spec.class_name, spec.configs), _pictures(spec)
    output = next(name for name, seen in SEEN.items() if seen == pictures)
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
        frames=f"output.get({output!r}){_first(spec, pictures)}",
        sound=f"output.get({_sound(spec)!r})",
        guiders="".join(guiders),
    )


def _pictures(spec: PipelineSpec) -> str:
    """Return what the output of a call calls them."""
    usual = "images" if spec.kind == "image" else "frames"
    return next((name for name in PICTURES if name in spec.returns), usual)


def _sound(spec: PipelineSpec) -> str:
    return next((name for name in SOUND if name in spec.returns), SOUND[0])


def _first(spec: PipelineSpec, pictures: str) -> str:
    return "[0]" if pictures == "frames" or spec.has_layers else ""


def _named(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
