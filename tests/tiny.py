"""Build tiny random-weight diffusers pipeline folders: real classes, the same bytes every time."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, ModularPipeline

from tests.pictures import clip, picture
from tests.random_weights import fill_weights
from tests.tinies import cogvideox, image, images, layered, ltx2, modular, opensora, sound, video, wan

BUILDERS: dict[str, Callable[[], DiffusionPipeline | ModularPipeline]] = {
    "wan": wan.wan,
    "wan_moe": wan.wan_moe,
    "wan_known": wan.wan_known,
    "wan_ti2v": wan.wan_ti2v,
    "wan_ti2v_image": wan.wan_ti2v_image,
    "wan_i2v": wan.wan_i2v,
    "wan_i2v_moe": wan.wan_i2v_moe,
    "wan_v2v": wan.wan_v2v,
    "cogvideox": cogvideox.cogvideox,
    "cogvideox_2b": cogvideox.cogvideox_2b,
    "cogvideox_1_5": cogvideox.cogvideox_1_5,
    "cogvideox_i2v": cogvideox.cogvideox_i2v,
    "cogvideox_1_5_i2v": cogvideox.cogvideox_1_5_i2v,
    "cogvideox_v2v": cogvideox.cogvideox_v2v,
    "ltx": video.ltx,
    "ltx_i2v": video.ltx_i2v,
    "ltx2": ltx2.ltx2,
    "ltx2_hdr": ltx2.ltx2_hdr,
    "stable_audio": sound.stable_audio,
    "qwen_layered": layered.qwen_layered,
    "hunyuan": video.hunyuan,
    "opensora": opensora.opensora,
    "opensora_dc": opensora.opensora_dc,
    "animatediff": video.animatediff,
    "svd": video.svd,
    "sd": image.sd,
    "sdxl": image.sdxl,
    "sd3": image.sd3,
    "flux": image.flux,
    "hunyuan_image": image.hunyuan_image,
    **images.BUILDERS,
    "wan_modular": modular.wan_modular,
    "wan_moe_modular": modular.wan_moe_modular,
    "ltx_modular": modular.ltx_modular,
    "flux_modular": modular.flux_modular,
    "sdxl_modular": modular.sdxl_modular,
    "anima": modular.anima,
}

_FRAMES_5 = {"height": 16, "width": 16, "num_frames": 5, "num_inference_steps": 2}
_FRAMES_9 = {"height": 16, "width": 16, "num_frames": 9, "num_inference_steps": 2}
_IMAGE = {"height": 16, "width": 16, "num_inference_steps": 2}
SMALLEST: dict[str, dict[str, Any]] = {
    "wan": _FRAMES_5,
    "wan_moe": _FRAMES_5,
    "wan_ti2v": _FRAMES_5 | {"height": 32, "width": 32},
    "wan_ti2v_image": _FRAMES_5 | {"height": 32, "width": 32},
    "wan_i2v": _FRAMES_5 | {"max_sequence_length": 512},  # fixed, see rows/tables/limits.py
    "wan_i2v_moe": _FRAMES_5,
    "wan_v2v": {"height": 16, "width": 16, "num_inference_steps": 2, "strength": 0.8},
    "cogvideox": _FRAMES_9,
    "cogvideox_2b": _FRAMES_9,
    "cogvideox_1_5": _FRAMES_9,
    "cogvideox_i2v": _FRAMES_9 | {"height": 32, "width": 32},
    "cogvideox_1_5_i2v": _FRAMES_9,
    "cogvideox_v2v": {"height": 16, "width": 16, "num_inference_steps": 2, "strength": 0.8},
    "ltx": _FRAMES_9 | {"height": 32, "width": 32},
    "ltx_i2v": _FRAMES_9 | {"height": 32, "width": 32},
    "ltx2": _FRAMES_9 | {"height": 32, "width": 32, "stg_scale": 0.0, "audio_stg_scale": 0.0},
    "hunyuan": _FRAMES_5,
    "opensora": _FRAMES_5 | {"height": 32, "width": 32, "max_sequence_length": 16},
    "opensora_dc": _FRAMES_5 | {"height": 64, "width": 32, "num_frames": 8, "max_sequence_length": 16},
    "animatediff": _FRAMES_5 | {"num_frames": 4},
    "svd": _FRAMES_5 | {"num_frames": 4},
    "sd": _IMAGE,
    "sdxl": _IMAGE,
    "sd3": _IMAGE,
    "flux": _IMAGE,
    "wan_modular": _FRAMES_5,
    "wan_moe_modular": _FRAMES_5,
    "ltx_modular": _FRAMES_9 | {"height": 32, "width": 32},
    "flux_modular": _IMAGE | {"height": 32, "width": 32},
    "sdxl_modular": _IMAGE,
    "anima": _IMAGE | {"height": 32, "width": 32},
    **images.SMALLEST,
}
# Those that make something else than frames in [0, 1]: sound alone, light beyond one, layers with alpha.
UNLIKE: dict[str, dict[str, Any]] = {
    "ltx2_hdr": _FRAMES_9 | {"height": 32, "width": 32, "max_sequence_length": 32},
    "stable_audio": {"num_inference_steps": 2, "audio_end_in_s": 0.2},
    "qwen_layered": {"num_inference_steps": 1, "layers": 2},
}
# What they start from, beside a prompt, and how many frames of it.
INPUTS: dict[str, dict[str, int]] = {
    "wan_ti2v_image": {"image": 1},
    "wan_i2v": {"image": 1},
    "wan_i2v_moe": {"image": 1},
    "wan_v2v": {"video": 5},
    "cogvideox_i2v": {"image": 1},
    "cogvideox_1_5_i2v": {"image": 1},
    "cogvideox_v2v": {"video": 9},
    "ltx_i2v": {"image": 1},
    "opensora": {"last_image": 1},
    "svd": {"image": 1},
    **images.INPUTS,
}
# Keeps most pixels between black and white, and most sound between silence and full scale.
_DAMPED = {
    "vae.decoder.conv_out": 0.5,
    "movq.decoder.conv_out": 0.5,
    "vae.decoder.conv2": 0.02,
    "vocoder.conv_out": 1e-5,
}


def smallest_call(name: str, *, start: int = 0) -> dict[str, Any]:
    """Return the arguments of a plain call. start: the number of the picture or clip that it starts from."""
    inputs = {
        argument: clip(start, num_frames=count) if argument == "video" else picture(start)
        for argument, count in INPUTS.get(name, {}).items()
    }
    prompt = {} if name == "svd" else {"prompt": "a red ball"}
    return {**SMALLEST[name], **prompt, **inputs}


@functools.cache
def tiny(name: str) -> Path:
    """Return the folder of a tiny pipeline, built once per process and removed at its exit."""
    parent = Path(tempfile.mkdtemp(prefix="framefleet-tiny-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    return build(name, parent / name)


def build(name: str, folder: Path) -> Path:
    """Save pipeline `name` (a key of BUILDERS) into `folder`; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):  # constructors draw weights that are then overwritten
        pipeline = BUILDERS[name]()
    for seed, key in enumerate(sorted(pipeline.components)):
        if isinstance(pipeline.components[key], torch.nn.Module):
            fill_weights(pipeline.components[key], seed=seed)
    with torch.no_grad():
        for place, factor in _DAMPED.items():
            part = functools.reduce(lambda at, name: getattr(at, name, None), place.split("."), pipeline)
            for weight in part.parameters() if part else ():
                weight.mul_(factor)
    if isinstance(pipeline, ModularPipeline):
        modular.save(pipeline, folder)
    else:
        pipeline.save_pretrained(folder, safe_serialization=True)
    return folder
