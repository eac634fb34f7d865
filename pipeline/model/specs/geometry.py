"""From component configs to what can be rendered: size multiple, frame step, default size, native rate.

And from a row's arguments to whether its size is far from those that the model was trained at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from framefleet.pipeline.model.families.autoencoders import PACKING_ALIKE
from framefleet.pipeline.model.families.family import Family, Preset, config_value
from framefleet.pipeline.model.specs.signature import Parameter
from framefleet.pipeline.text import SHAPE_ORDER, shape_text

if TYPE_CHECKING:
    from framefleet.pipeline.model.specs.native_facts import NativeFacts
    from framefleet.pipeline.model.specs.pipeline_call import PipelineCall
    from framefleet.pipeline.model.specs.size_rules import SizeRules
    from framefleet.pipeline.model.specs.spec import PipelineSpec

FRAME_PARAMETERS = ("num_frames", "video_length", "frames")
_LEVELS = ("block_out_channels", "encoder_block_out_channels", "dim_mult")  # one entry per resolution
AUTOENCODERS = ("vae", "vqvae", "movq")  # what pipelines call theirs
_Configs = Mapping[str, Mapping[str, Any]]
Parameters = Mapping[str, Parameter]
# Models render twice their native sides well enough, or half of them; beyond, they repeat and tear.
FAR = 4


def _vae_factors(configs: _Configs) -> tuple[int, int]:
    """Return how many pixels and frames one latent stands for, computed as diffusers' pipelines do."""
    vae = next((configs[name] for name in AUTOENCODERS if name in configs), {})
    listed = (vae[key] for key in _LEVELS if isinstance(vae.get(key), list | tuple))
    levels = len(next(listed, [0] * 4)) - 1
    spatial, temporal = 2**levels, vae.get("time_compression_ratio") or 1
    if scaling := vae.get("spatio_temporal_scaling"):
        halved = 2 ** (levels if scaling is True else sum(scaling))
        spatial, temporal = _last(vae.get("patch_size")) * halved, _last(vae.get("patch_size_t")) * halved
    spatial = vae.get("scale_factor_spatial") or vae.get("spatial_compression_ratio") or spatial
    temporal = vae.get("scale_factor_temporal") or vae.get("temporal_compression_ratio") or temporal
    return int(spatial), int(temporal)


def size_multiple(rules: SizeRules, facts: NativeFacts, configs: _Configs, family: Family) -> int:
    """Return what the pipeline writes down, and what it states, or its denoiser and autoencoder take."""
    spatial, _ = _vae_factors(configs)
    patch = _last(_denoiser(configs).get("patch_size"))
    return math.lcm(family.size_base, rules.sides, facts.sides or spatial * patch)


def frame_step(call: PipelineCall, configs: _Configs, family: Family) -> int | None:
    """Return what the pipeline states or writes down, or else what its autoencoder packs."""
    if call.facts.frame_step:
        return call.facts.frame_step
    rules, (_, temporal) = call.rules, _vae_factors(configs)
    step = (rules.frames if rules.frames > 1 else temporal) * family.frame_factor
    return step if step > 1 else None


def frame_rest(call: PipelineCall, class_name: str, configs: _Configs, family: Family) -> int:
    """Return what the pipeline states, or 1 where the first frame is packed alone, 0 where none is."""
    if call.facts.frame_rest is not None:
        return call.facts.frame_rest
    path = family.whole_when.get(class_name)
    is_whole = path is not None and config_value(configs, path)
    return 0 if is_whole or config_value(configs, "vae._class_name") in PACKING_ALIKE else 1


def default_size(
    call: PipelineCall, parameters: Parameters, configs: _Configs, family: Family
) -> tuple[int | None, int | None]:
    """Return the (height, width) of a call that gives none, of the first that says one.

    The signature, the class, the family, the denoiser.
    """
    signature = [parameters[name].default if name in parameters else None for name in ("height", "width")]
    if isinstance(signature[0], int) and isinstance(signature[1], int):
        return signature[0], signature[1]
    if call.facts.height and call.facts.width:
        return call.facts.height, call.facts.width
    if isinstance(family.default_size, tuple):
        return family.default_size
    if family.default_size is None:
        return None, None
    sample = _denoiser(configs).get("sample_size") if family.default_size == "config" else family.default_size
    if isinstance(sample, list) and len(sample) != 2:
        return None, None
    height, width = sample if isinstance(sample, list) else (sample, sample)
    height = _denoiser(configs).get("sample_height", height)
    width = _denoiser(configs).get("sample_width", width)
    spatial, _ = _vae_factors(configs)
    return (height * spatial, width * spatial) if height and width else (None, None)


def default_frames(call: PipelineCall, parameters: Parameters, configs: _Configs) -> int | None:
    for name in FRAME_PARAMETERS:
        if name in parameters:
            denoiser, stated = _denoiser(configs), parameters[name].default or call.facts.num_frames
            frames = stated or denoiser.get("sample_frames") or denoiser.get("num_frames")
            return frames if isinstance(frames, int) else None
    return None


def only_frames(configs: _Configs) -> int | None:
    """Return the length that image tokens of a frame each tie the clip to."""
    frames = configs.get("image_projector", {}).get("num_frames")
    return frames if frames and frames > 1 else None


def native_fps(
    call: PipelineCall, parameters: Parameters, configs: _Configs, family: Family, preset: Preset | None
) -> float | None:
    """Return frames per second as trained: as the class states, else as the model is known to render.

    Newer models of a family are recognised by their configs.
    """
    names = ("frame_rate",) if family.fps_is_motion else ("frame_rate", "fps")
    rates = (parameters[name].default for name in names if name in parameters)
    if stated := next((rate for rate in rates if isinstance(rate, int | float)), call.facts.fps):
        return float(stated)
    if preset:
        return preset.fps
    newer = (fps for path, fps in family.fps_when.items() if config_value(configs, path))
    return next(newer, family.fps)


def motion_rate(parameters: Parameters, configs: _Configs, family: Family) -> int | None:
    """Return the `fps` of a call without one where it says how much motion there is to be."""
    rate = _denoiser(configs).get("default_fps") if family.fps_is_motion and "fps" in parameters else None
    return rate if isinstance(rate, int) else None


def _last(patch: Any) -> int:
    """Return how many pixels wide a patch is: one number, or (frames, height, width)."""
    return int(patch[-1] if isinstance(patch, list | tuple) else patch or 1)


def _denoiser(configs: _Configs) -> Mapping[str, Any]:
    return configs.get("transformer") or configs.get("unet") or {}


def far_from_native(spec: PipelineSpec, arguments: Mapping[str, Any]) -> str | None:
    """Return what is unusual about a size, with the model's own; None where nothing is, as far as known."""
    native, asked = _size(spec.defaults()), _size(arguments)
    pixels = _ratio(_area(asked), _area(native))
    frames = 1.0 if asked[0] == 1 else _ratio(asked[0], native[0])  # a video model may render pictures
    if 1 / FAR <= pixels <= FAR and 1 / FAR <= frames <= FAR:
        return None
    what = "frames" if not 1 / FAR <= frames <= FAR else "pixels in each"
    ratio = frames if what == "frames" else pixels
    often = f"{ratio:.3g} times" if ratio > 1 else f"1/{1 / ratio:.3g} of"
    return (
        f"{shape_text(*asked)} is {often} the {what} of the model's own size, "
        f"{shape_text(*native)} ({SHAPE_ORDER}): clips may repeat, tear or be noise"
    )


def _size(arguments: Mapping[str, Any]) -> tuple[int | None, int | None, int | None]:
    numbers = [arguments.get(name) for name in ("height", "width")]
    frames = next((arguments[name] for name in FRAME_PARAMETERS if name in arguments), None)
    height, width = (number if isinstance(number, int) else None for number in numbers)
    return frames if isinstance(frames, int) else None, height, width


def _area(size: tuple[int | None, int | None, int | None]) -> int | None:
    return size[1] * size[2] if size[1] and size[2] else None


def _ratio(asked: int | None, native: int | None) -> float:
    """Return how many times as much it is; 1 where one of both is not known."""
    return asked / native if asked and native else 1.0
