"""From a diffusers pipeline folder to what its calls accept. Reads only configs, no weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from framefleet.pipeline.errors import SHAPE_ORDER, ModelError, shape_text
from framefleet.pipeline.model.families.family import Family, Preset, config_value
from framefleet.pipeline.model.families.registry import family_of, preset_of
from framefleet.pipeline.model.specs import model_index, pipeline_call
from framefleet.pipeline.model.specs.config_values import check_values
from framefleet.pipeline.model.specs.dtypes import DTypeName
from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS, Parameter, PictureMode, Scalar
from framefleet.pipeline.outputs.frames.fields import MAPS, PICTURES, SOUND, VIDEO_FIELDS

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_AUTOENCODERS = ("vae", "vqvae", "movq")  # their names in pipelines
# These pack all frames alike; others pack the first one separately.
_PACKING_ALIKE = ("AutoencoderDCVideo",)
_LEVELS = ("block_out_channels", "encoder_block_out_channels", "dim_mult")  # one entry per resolution
# Components whose configs say what can be rendered.
_READ = (*_AUTOENCODERS, "scheduler", "transformer", "unet", "motion_adapter", "image_projector")
# Models work well enough with twice or half their native sides; beyond that, clips repeat and tear.
FAR = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSpec:
    """What a model folder renders, and what its `__call__` takes."""

    class_name: str
    kind: Literal["video", "image", "audio"]
    parameters: Mapping[str, Parameter]
    family: Family
    size_multiple: int = 1  # of height and width; other sizes are rounded silently or fail late
    # Frames must be `frame_step * k + frame_rest`; None: any number.
    frame_step: int | None = None
    frame_rest: int = 0
    min_frames: int | None = None  # of the shortest clip that the model was made for; None: no limit
    max_frames: int | None = None  # of the longest clip that the model was made for; None: no limit
    only_frames: int | None = None  # the only length that the model renders; None: any
    # The largest `max_sequence_length` that the pipeline takes; None: unknown.
    max_text: int | None = None
    native_fps: float | None = None
    default_height: int | None = None  # these three: of a plain call that does not set them; None: unknown
    default_width: int | None = None
    default_frames: int | None = None
    scheduler_class: str = ""  # of the model's own noise scheduler
    scheduler_config: Mapping[str, Any] = field(default_factory=dict)
    components: tuple[str, ...] = ()  # the names in model_index.json
    preset: Preset | None = None  # what is known about the model beyond its configs
    configs: model_index.Configs  # of the components, and model_index.json as "index"
    returns: frozenset[str] = frozenset()  # fields of the call's output; empty: unknown

    @property
    def pipeline_class(self) -> type[DiffusionPipeline]:
        """The concrete class: the generic loader drops components that are passed to it (diffusers 0.42)."""
        return pipeline_call.pipeline_named(self.class_name)

    @property
    def has_sound(self) -> bool:
        return not self.returns.isdisjoint(SOUND)

    @property
    def has_layers(self) -> bool:
        return self.kind == "image" and "layers" in self.parameters

    @property
    def picture_mode(self) -> PictureMode:
        """The mode of its input pictures: with alpha if its autoencoder takes that."""
        vae = self.configs.get("vae", {})
        return "RGBA" if 4 in (vae.get("input_channels"), vae.get("in_channels")) else "RGB"

    @property
    def auto_dtypes(self) -> Mapping[str, DTypeName]:
        """The dtypes for `dtype: auto` on a GPU, by component, with a default; from preset or family."""
        return self.preset.auto_dtypes if self.preset else self.family.dtypes

    def settable(self) -> dict[str, Parameter]:
        """Return the parameters that a table or the job's defaults may set."""
        return {name: parameter for name, parameter in self.parameters.items() if parameter.kind}

    def from_json(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return JSON arguments for a call, with the tuples that JSON does not have."""
        tuples = {name for name, parameter in self.parameters.items() if parameter.entries is not None}
        return {
            name: tuple(value) if name in tuples and isinstance(value, list) else value
            for name, value in arguments.items()
        }

    def defaults(self) -> dict[str, Scalar]:
        """Return the arguments of a row that sets none: from the preset, else from the call."""
        values = {name: p.default for name, p in self.settable().items() if p.default is not None}
        sizes: dict[str, Scalar | None] = {"height": self.default_height, "width": self.default_width}
        sizes |= dict.fromkeys(FRAME_PARAMETERS, self.default_frames)
        sizes |= self.native()
        return values | {k: v for k, v in sizes.items() if v is not None and k in self.parameters}

    def native(self) -> dict[str, Scalar]:
        """Return values that the class does not have: the preset's, and the model's own motion rate."""
        rate = _denoiser(self.configs).get("default_fps")
        values = dict(self.preset.arguments) if self.preset else {}
        if self.family.fps_is_motion and "fps" in self.parameters and isinstance(rate, int):
            values["fps"] = rate
        return values

    def fps_of(self, arguments: Mapping[str, Any]) -> float | None:
        """Return the native rate of a clip: the one in its arguments, else the model's."""
        own = None if self.family.fps_is_motion else arguments.get("fps")
        rate = arguments.get("frame_rate", own)
        return float(rate) if isinstance(rate, int | float) and rate > 0 else self.native_fps

    def far_from_native(self, arguments: Mapping[str, Any]) -> str | None:
        """Return how a row's size is far from the model's own, or None."""

        def size_in(values: Mapping[str, Any]) -> list[int]:
            length = next((values[name] for name in FRAME_PARAMETERS if name in values), None)
            numbers = (length, values.get("height"), values.get("width"))
            return [number if isinstance(number, int) else 0 for number in numbers]

        native, row = size_in(self.defaults()), size_in(arguments)
        frames = (row[0], native[0]) if row[0] != 1 else (1, 1)  # a video model may render pictures
        pixels = row[1] * row[2], native[1] * native[2]
        for what, (own, usual) in {"frames": frames, "pixels in each": pixels}.items():
            ratio = own / usual if own and usual else 1.0
            if not 1 / FAR <= ratio <= FAR:
                often = f"{ratio:.3g} times" if ratio > 1 else f"1/{1 / ratio:.3g} of"
                size, usual_size = (shape_text(*(n or None for n in shape)) for shape in (row, native))
                return (
                    f"{size} is {often} the {what} of the model's own size, {usual_size} "
                    f"({SHAPE_ORDER}): clips may repeat, tear or be noise"
                )
        return None


def inspect_model(path: str | Path) -> PipelineSpec:
    """Return what the pipeline folder at `path` accepts. Raises ModelError if it is incomplete."""
    folder = Path(path)
    if not folder.is_dir():
        fix = "use the folder with the model_index.json; download a hub model first"
        raise ModelError(f"model {str(folder)!r} is not a folder", fix)
    index = model_index.read_index(folder)
    configs: dict[str, Mapping[str, Any]] = {"index": index.values}
    for name in index.components:
        fix = f"download the whole model; {name!r} is named in its index"
        if not (folder / name).is_dir():
            raise ModelError(f"component folder {folder / name} does not exist", fix)
        if name in _READ:
            file = "scheduler_config.json" if name == "scheduler" else "config.json"
            configs[name] = model_index.read_object(folder / name / file, fix)
        elif name.endswith("_scheduler"):  # for sound or a prior: it has the same bounds
            config = model_index.read_object(folder / name / "scheduler_config.json", fix)
            check_values({"scheduler": config}, {"scheduler": index.components[name]}, str(folder / name))
    if model_index.has_controlnets(configs):
        folders = [entry.name for entry in folder.iterdir() if entry.is_dir()]
        configs["controlnet"] = {model_index.NETS: len(model_index.network_folders("controlnet", folders))}
    if model_index.is_modular(index.class_name):
        from framefleet.pipeline.model.modular import block_configs  # imports diffusers

        pipeline_call.pipeline_named(index.class_name)
        configs = block_configs(index, folder) | configs
    check_values(configs, index.components, str(folder))
    pipeline_call.check_classes(index, configs, str(folder))
    spec = spec_of(index.class_name, configs)
    if spec.returns and spec.returns.isdisjoint((*PICTURES, *MAPS, *SOUND)):
        returns = ", ".join(sorted(spec.returns))
        problem = f"{index.class_name} in {folder} returns neither frames nor sound, but {returns}"
        raise ModelError(problem, "use a model that renders images, videos or sound")
    return spec


def spec_of(class_name: str, configs: model_index.Configs) -> PipelineSpec:
    """Return what a pipeline class accepts with components of these configs, model_index.json as "index"."""
    index = model_index.index_of(configs["index"], model_index.MODEL_INDEX)
    call = pipeline_call.call_of(class_name, configs)
    scheduler, denoiser, family = configs.get("scheduler", {}), _denoiser(configs), family_of(class_name)
    parameters, returns, facts = {p.name: p for p in call.parameters}, call.returns, call.facts
    preset = preset_of(class_name, configs) or preset_of(index.class_name, configs)
    is_sound_alone = returns.isdisjoint((*PICTURES, *MAPS)) and not returns.isdisjoint(SOUND)
    length = next((parameters[name] for name in FRAME_PARAMETERS if name in parameters), None)
    is_video = family.fps is not None or length is not None or not returns.isdisjoint(VIDEO_FIELDS)
    # Image tokens for each frame fix the length of clips.
    num_images = configs.get("image_projector", {}).get("num_frames") or 0
    only_frames = num_images if num_images > 1 else None
    stated = (length.default if length else None) or facts.num_frames
    frames = stated or denoiser.get("sample_frames") or denoiser.get("num_frames")
    is_whole = class_name in family.whole_when and config_value(configs, family.whole_when[class_name])
    packs_alike = is_whole or config_value(configs, "vae._class_name") in _PACKING_ALIKE
    # From the class's source, else from its autoencoder.
    packed = facts.frame_divisor if facts.frame_divisor > 1 else _vae_factors(configs)[1]
    step = facts.frame_step or packed * family.frame_factor
    shortest, longest = facts.frames_between()
    trained = family.max_frames or configs.get("motion_adapter", {}).get("motion_max_seq_length")
    height, width = _default_size(call, configs, family)
    # Frames per second of the training videos: from the class, else from preset or family.
    names = ("frame_rate",) if family.fps_is_motion else ("frame_rate", "fps")
    rates = (*(parameters[name].default for name in names if name in parameters), facts.fps)
    newer = (fps for path, fps in family.fps_when.items() if config_value(configs, path))
    usual = preset.fps if preset else next(newer, family.fps)
    native_fps = next((float(rate) for rate in rates if isinstance(rate, int | float) and rate), usual)
    return PipelineSpec(
        class_name=class_name,
        kind="audio" if is_sound_alone else "video" if is_video else "image",
        parameters=parameters,
        family=family,
        size_multiple=size_multiple(facts, configs, family),
        frame_step=step if is_video and (facts.frame_step or step > 1) else None,
        # If the class states none, the first frame is packed separately, unless all are packed alike.
        frame_rest=(0 if packs_alike else 1) if facts.frame_rest is None else facts.frame_rest,
        min_frames=shortest,
        max_frames=trained or longest,
        only_frames=only_frames,
        max_text=facts.max_text,
        native_fps=native_fps if is_video else None,
        default_height=height,
        default_width=width,
        default_frames=only_frames or (frames if length and isinstance(frames, int) else None),
        scheduler_class=index.components.get("scheduler", ("", scheduler.get("_class_name", "")))[1],
        scheduler_config={k: v for k, v in scheduler.items() if not k.startswith("_")},
        components=tuple(index.components),
        preset=preset,
        configs=configs,
        returns=returns,
    )


def size_multiple(facts: pipeline_call.SourceFacts, configs: model_index.Configs, family: Family) -> int:
    """Return the number that sides must be multiples of, from source, family, denoiser and autoencoder."""
    patch = _last(_denoiser(configs).get("patch_size"))
    canvas = facts.canvas_multiple or _vae_factors(configs)[0] * patch
    return math.lcm(family.size_base, facts.side_divisor, canvas)


def _default_size(
    call: pipeline_call.PipelineCall, configs: model_index.Configs, family: Family
) -> tuple[int | None, int | None]:
    """Return the (height, width) of a call without them: from signature, class, family, or denoiser."""
    defaults = {parameter.name: parameter.default for parameter in call.parameters}
    height, width = defaults.get("height"), defaults.get("width")
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    if call.facts.height and call.facts.width:
        return call.facts.height, call.facts.width
    if isinstance(family.default_size, tuple | None):
        return family.default_size or (None, None)
    denoiser = _denoiser(configs)
    sample = denoiser.get("sample_size") if family.default_size == "config" else family.default_size
    sides = sample if isinstance(sample, list) else [sample, sample]
    if len(sides) != 2:
        return None, None
    height, width = denoiser.get("sample_height", sides[0]), denoiser.get("sample_width", sides[1])
    spatial, _ = _vae_factors(configs)
    return (height * spatial, width * spatial) if height and width else (None, None)


def _vae_factors(configs: model_index.Configs) -> tuple[int, int]:
    """Return how many pixels and frames one latent stands for, as diffusers' pipelines compute it."""
    vae = next((configs[name] for name in _AUTOENCODERS if name in configs), {})
    listed = (vae[key] for key in _LEVELS if isinstance(vae.get(key), list | tuple))
    levels = len(next(listed, [0] * 4)) - 1
    spatial, temporal = 2**levels, vae.get("time_compression_ratio") or 1
    if scaling := vae.get("spatio_temporal_scaling"):
        halved = 2 ** (levels if scaling is True else sum(scaling))
        spatial, temporal = _last(vae.get("patch_size")) * halved, _last(vae.get("patch_size_t")) * halved
    spatial = vae.get("scale_factor_spatial") or vae.get("spatial_compression_ratio") or spatial
    temporal = vae.get("scale_factor_temporal") or vae.get("temporal_compression_ratio") or temporal
    return int(spatial), int(temporal)


def _last(patch: Any) -> int:
    """Return a patch's width in pixels. patch: a number, or (frames, height, width)."""
    return int(patch[-1] if isinstance(patch, list | tuple) else patch or 1)


def _denoiser(configs: model_index.Configs) -> Mapping[str, Any]:
    return configs.get("transformer") or configs.get("unet") or {}
