"""From a diffusers pipeline folder to what its calls accept, read from its configs: no weights are opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from framefleet.pipeline.errors import ModelError
from framefleet.pipeline.model.families.family import Family, Preset
from framefleet.pipeline.model.families.registry import family_of, preset_of
from framefleet.pipeline.model.specs import geometry
from framefleet.pipeline.model.specs.config_values import check_values
from framefleet.pipeline.model.specs.list_arguments import NETS, has_controlnets, num_nets
from framefleet.pipeline.model.specs.model_index import (
    MODEL_INDEX,
    index_of,
    is_modular,
    read_index,
    read_object,
)
from framefleet.pipeline.model.specs.pipeline_call import (
    call_of,
    check_components,
    check_factors,
    check_pipeline,
    check_scheduler,
    has_component,
    pipeline_named,
)
from framefleet.pipeline.model.specs.signature import Parameter, PictureMode, Scalar
from framefleet.pipeline.outputs.frames.fields import MAPS, PICTURES, SOUND, VIDEO_FIELDS

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Configs = Mapping[str, Mapping[str, Any]]
# Of the components, those whose configs say what can be rendered.
_READ = (*geometry.AUTOENCODERS, "scheduler", "transformer", "unet", "motion_adapter", "image_projector")


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSpec:
    """What one model folder renders and what its `__call__` takes."""

    class_name: str
    kind: Literal["video", "image", "audio"]
    parameters: Mapping[str, Parameter]
    family: Family
    size_multiple: int  # of height and width; other sizes are rounded silently or fail late
    frame_step: int | None  # frames must be `frame_step * k + frame_rest`; None: any number is rendered
    frame_rest: int
    min_frames: int | None  # of the shortest clip that the model was made for; None: no limit
    max_frames: int | None  # of the longest clip that the model was made for; None: no limit
    only_frames: int | None  # the one length that the model renders; None for all others
    max_text: int | None  # the largest `max_sequence_length` that the pipeline takes; None: it says nothing
    native_fps: float | None
    default_height: int | None  # what a plain call without these three renders; None: not known
    default_width: int | None
    default_frames: int | None
    scheduler_class: str  # of the model's own noise scheduler
    scheduler_config: Mapping[str, Any]
    components: tuple[str, ...]  # the names in model_index.json
    preset: Preset | None  # what is known about the model beyond its configs
    configs: Configs  # of the components, and model_index.json as "index"
    returns: frozenset[str] = frozenset()  # fields of the call's output; empty: not known

    @property
    def pipeline_class(self) -> type[DiffusionPipeline]:
        """The concrete class: the generic loader drops components that it is passed (diffusers 0.42)."""
        return pipeline_named(self.class_name)

    @property
    def has_sound(self) -> bool:
        """Whether clips may have sound."""
        return not self.returns.isdisjoint(SOUND)

    @property
    def has_layers(self) -> bool:
        """Whether what is rendered is several layers of one image."""
        return self.kind == "image" and "layers" in self.parameters

    @property
    def picture_mode(self) -> PictureMode:
        """How pictures are handed to it: with alpha where its autoencoder takes that."""
        vae = self.configs.get("vae", {})
        return "RGBA" if 4 in (vae.get("input_channels"), vae.get("in_channels")) else "RGB"

    def settable(self) -> dict[str, Parameter]:
        """Return the parameters that a table or the job's defaults may give."""
        return {name: parameter for name, parameter in self.parameters.items() if parameter.kind}

    def from_json(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments that were JSON as a call takes them: with tuples, which JSON has none of."""
        tuples = {name for name, parameter in self.parameters.items() if parameter.entries is not None}
        return {
            name: tuple(value) if name in tuples and isinstance(value, list) else value
            for name, value in arguments.items()
        }

    def defaults(self) -> dict[str, Scalar]:
        """Return what a row without arguments renders with: the preset's values, else those of the call."""
        given = {name: p.default for name, p in self.settable().items() if p.default is not None}
        sizes: dict[str, Scalar | None] = {"height": self.default_height, "width": self.default_width}
        sizes |= dict.fromkeys(geometry.FRAME_PARAMETERS, self.default_frames)
        sizes |= self.native()
        return given | {k: v for k, v in sizes.items() if v is not None and k in self.parameters}

    def native(self) -> dict[str, Scalar]:
        """Return what is known beyond the class: the preset's values, and the motion a model is given."""
        rate = geometry.motion_rate(self.parameters, self.configs, self.family)
        preset = dict(self.preset.arguments) if self.preset else {}
        return preset | ({} if rate is None else {"fps": rate})

    def fps_of(self, arguments: Mapping[str, Any]) -> float | None:
        """Return the native rate of a clip: what it is rendered for, where the call says so."""
        own = None if self.family.fps_is_motion else arguments.get("fps")
        rate = arguments.get("frame_rate", own)
        return float(rate) if isinstance(rate, int | float) and rate > 0 else self.native_fps


def inspect_model(path: str | Path) -> PipelineSpec:
    """Return what the pipeline folder at `path` accepts. Raises ModelError when it is not a complete one."""
    folder = Path(path)
    if not folder.is_dir():
        raise ModelError(
            f"model {str(folder)!r} is not a folder",
            "give the folder that holds model_index.json; download a hub model first",
        )
    index = read_index(folder)
    configs = {**_component_configs(folder, index.components), "index": index.values}
    if has_controlnets(configs):
        configs["controlnet"] = {NETS: num_nets(folder, "controlnet")}
    check_pipeline(index.class_name)
    if is_modular(index.class_name):
        from framefleet.pipeline.model.modular import check_blocks, own_configs  # imports diffusers

        check_blocks(index)
        configs = own_configs(index, folder) | configs
    if "scheduler" not in configs and has_component(index.class_name, "scheduler"):
        raise ModelError(f"{index.class_name} in {folder} has no noise scheduler", "use a diffusion pipeline")
    if "scheduler" in index.components:
        check_scheduler(*index.components["scheduler"], index.where)
    check_values(configs, index.components, str(folder))
    check_factors(index.class_name, configs, str(folder))
    check_components(index.class_name, index.components, index.where)
    spec = spec_of(index.class_name, configs)
    if spec.returns and spec.returns.isdisjoint((*PICTURES, *MAPS, *SOUND)):
        raise ModelError(
            f"{index.class_name} in {folder} returns neither frames nor sound, "
            f"but {', '.join(sorted(spec.returns))}",
            "use a model that renders images, videos or sound",
        )
    return spec


def spec_of(class_name: str, configs: Configs) -> PipelineSpec:
    """Return what a pipeline class accepts over components of these configs, model_index.json as "index"."""
    index, scheduler = index_of(configs["index"], MODEL_INDEX), configs.get("scheduler", {})
    call = call_of(class_name, configs)
    parameters, returns = {p.name: p for p in call.parameters}, call.returns
    family = family_of(class_name)
    is_sound_alone = returns.isdisjoint((*PICTURES, *MAPS)) and not returns.isdisjoint(SOUND)
    has_length = any(name in parameters for name in geometry.FRAME_PARAMETERS)
    video = family.fps is not None or has_length or not returns.isdisjoint(VIDEO_FIELDS)
    height, width = geometry.default_size(call, parameters, configs, family)
    longest = family.max_frames or configs.get("motion_adapter", {}).get("motion_max_seq_length")
    shortest, longest_stated = call.facts.frames_between()
    preset = preset_of(class_name, configs) or preset_of(index.class_name, configs)
    return PipelineSpec(
        class_name=class_name,
        kind="audio" if is_sound_alone else "video" if video else "image",
        parameters=parameters,
        family=family,
        size_multiple=geometry.size_multiple(call.rules, call.facts, configs, family),
        frame_step=geometry.frame_step(call, configs, family) if video else None,
        frame_rest=geometry.frame_rest(call, class_name, configs, family),
        min_frames=shortest,
        max_frames=longest or longest_stated,
        only_frames=geometry.only_frames(configs),
        max_text=call.rules.max_text,
        native_fps=geometry.native_fps(call, parameters, configs, family, preset) if video else None,
        default_height=height,
        default_width=width,
        default_frames=geometry.only_frames(configs) or geometry.default_frames(call, parameters, configs),
        scheduler_class=index.components.get("scheduler", ("", scheduler.get("_class_name", "")))[1],
        scheduler_config={k: v for k, v in scheduler.items() if not k.startswith("_")},
        components=tuple(index.components),
        preset=preset,
        configs=configs,
        returns=returns,
    )


def _component_configs(folder: Path, components: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the configs of all components that have one. Every component named must have its folder."""
    configs = {}
    for name in components:
        fix = f"download the whole model; {name!r} is named in its index"
        if not (folder / name).is_dir():
            raise ModelError(f"component folder {folder / name} does not exist", fix)
        file = "scheduler_config.json" if name == "scheduler" else "config.json"
        if name in _READ:
            configs[name] = read_object(folder / name / file, fix)
    return configs
