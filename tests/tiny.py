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
from tests.tinies import (
    cogvideox,
    controlled,
    cosmos,
    cosmos3,
    diffusion_transformers,
    flux3,
    helios,
    hunyuan,
    hunyuan_i2v,
    image,
    images,
    kandinsky,
    kandinsky_sr,
    layered,
    ltx2,
    ltx2_kin,
    minimax_h3,
    modular,
    motif,
    opensora,
    sana_video,
    skyreels,
    sound,
    stable_video,
    video,
    wan,
    wan_animate_2,
    wan_kin,
)

BUILDERS: dict[str, Callable[[], DiffusionPipeline | ModularPipeline]] = {
    "wan": wan.wan,
    "wan_moe": wan.wan_moe,
    "wan_known": wan.wan_known,
    "wan_ti2v": wan.wan_ti2v,
    "wan_ti2v_image": wan.wan_ti2v_image,
    "wan_i2v": wan.wan_i2v,
    "wan_i2v_moe": wan.wan_i2v_moe,
    "wan_v2v": wan.wan_v2v,
    "wan_vace": wan.wan_vace,
    "wan_animate": wan.wan_animate,
    "lucy": wan.lucy,
    "anyflow": wan_kin.anyflow,
    "anyflow_far": wan_kin.anyflow_far,
    "chronoedit": wan_kin.chronoedit,
    "skyreels": skyreels.skyreels,
    "skyreels_i2v": skyreels.skyreels_i2v,
    "skyreels_df": skyreels.skyreels_df,
    "skyreels_df_i2v": skyreels.skyreels_df_i2v,
    "skyreels_df_v2v": skyreels.skyreels_df_v2v,
    "helios": helios.helios,
    "helios_pyramid": helios.helios_pyramid,
    "sana_video": sana_video.sana_video,
    "sana_video_i2v": sana_video.sana_video_i2v,
    "motif": motif.motif,
    "motif_i2v": motif.motif_i2v,
    "cogvideox": cogvideox.cogvideox,
    "cogvideox_2b": cogvideox.cogvideox_2b,
    "cogvideox_1_5": cogvideox.cogvideox_1_5,
    "cogvideox_i2v": cogvideox.cogvideox_i2v,
    "cogvideox_1_5_i2v": cogvideox.cogvideox_1_5_i2v,
    "cogvideox_v2v": cogvideox.cogvideox_v2v,
    "cogvideox_fun_control": cogvideox.cogvideox_fun_control,
    "mochi": diffusion_transformers.mochi,
    "allegro": diffusion_transformers.allegro,
    "latte": diffusion_transformers.latte,
    "easyanimate": diffusion_transformers.easyanimate,
    "ltx": video.ltx,
    "ltx_condition": video.ltx_condition,
    "ltx2": ltx2.ltx2,
    "ltx2_i2v": ltx2_kin.ltx2_i2v,
    "ltx2_condition": ltx2_kin.ltx2_condition,
    "ltx2_in_context": ltx2_kin.ltx2_in_context,
    "ltx2_dfr": ltx2_kin.ltx2_dfr,
    "ltx2_upsampler": ltx2_kin.ltx2_upsampler,
    "ltx_long": video.ltx_long,
    "ltx_i2v": video.ltx_i2v,
    "ltx_upsampler": video.ltx_upsampler,
    "ltx2_hdr": ltx2.ltx2_hdr,
    "stable_audio": sound.stable_audio,
    "qwen_layered": layered.qwen_layered,
    "hunyuan": video.hunyuan,
    "hunyuan_skyreels_i2v": hunyuan.hunyuan_skyreels_i2v,
    "hunyuan_i2v": hunyuan_i2v.hunyuan_i2v,
    "framepack": hunyuan.framepack,
    "cosmos3": cosmos3.cosmos3,
    **cosmos.BUILDERS,
    "hunyuan_1_5": hunyuan.hunyuan_1_5,
    "hunyuan_1_5_i2v": hunyuan.hunyuan_1_5_i2v,
    "kandinsky": kandinsky.kandinsky,
    "kandinsky_i2v": kandinsky.kandinsky_i2v,
    "kandinsky_6": kandinsky.kandinsky_6,
    "kandinsky_6_sr": kandinsky_sr.kandinsky_6_sr,
    "opensora": opensora.opensora,
    "opensora_dc": opensora.opensora_dc,
    "animatediff": video.animatediff,
    "animatediff_v2v": stable_video.animatediff_v2v,
    "animatediff_xl": stable_video.animatediff_xl,
    "animatediff_pag": controlled.animatediff_pag,
    "pia": stable_video.pia,
    "modelscope": stable_video.modelscope,
    "modelscope_v2v": stable_video.modelscope_v2v,
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
    "sd3_modular": modular.sd3_modular,
    "helios_modular": modular.helios_modular,
    "ltx2_modular": modular.ltx2_modular,
    "ltx2_5_modular": modular.ltx2_5_modular,
    "echo": modular.echo,
    "qwen_modular": modular.qwen_modular,
    "z_image_modular": modular.z_image_modular,
    "anima": modular.anima,
    "minimax_h3": minimax_h3.minimax_h3,
    "wan_animate_2": wan_animate_2.wan_animate_2,
    "flux3": flux3.flux3,
    "flux3_distilled": flux3.flux3_distilled,
}

_FRAMES_5 = {"height": 16, "width": 16, "num_frames": 5, "num_inference_steps": 2}
_FRAMES_9 = {"height": 16, "width": 16, "num_frames": 9, "num_inference_steps": 2}
_IMAGE = {"height": 16, "width": 16, "num_inference_steps": 2}
_WAN = _FRAMES_5 | {"max_sequence_length": 32}  # of 512 tokens, its own, attention takes a third of a call
_LTX2 = _FRAMES_9 | {"height": 32, "width": 32, "stg_scale": 0.0, "audio_stg_scale": 0.0}
SMALLEST: dict[str, dict[str, Any]] = {
    "wan": _WAN,
    "wan_moe": _WAN,
    "wan_ti2v": _WAN | {"height": 32, "width": 32},
    "wan_ti2v_image": _WAN | {"height": 32, "width": 32},
    "wan_i2v": _FRAMES_5 | {"max_sequence_length": 512},  # fixed, see rows/tables/limits.py
    "wan_i2v_moe": _WAN,
    "wan_v2v": _IMAGE | {"strength": 0.8, "max_sequence_length": 32},
    "wan_vace": _WAN,
    "wan_animate": {"height": 16, "width": 16, "segment_frame_length": 9, "num_inference_steps": 2}
    | {"max_sequence_length": 512},
    "lucy": _WAN,
    "anyflow": _FRAMES_5,
    "anyflow_far": _FRAMES_9,
    "chronoedit": _FRAMES_5 | {"max_sequence_length": 512},
    "skyreels": _FRAMES_5,
    "skyreels_i2v": _FRAMES_5 | {"max_sequence_length": 512},
    "skyreels_df": _FRAMES_9,
    "skyreels_df_i2v": _FRAMES_9,
    "skyreels_df_v2v": _FRAMES_9 | {"num_frames": 17, "base_num_frames": 9, "overlap_history": 5},
    "helios": _FRAMES_5 | {"num_frames": 33},
    "helios_pyramid": {"height": 64, "width": 64, "num_frames": 33},
    "sana_video": {"height": 32, "width": 32, "frames": 5, "num_inference_steps": 2}
    | {"use_resolution_binning": False},
    "sana_video_i2v": {"height": 32, "width": 32, "frames": 5, "num_inference_steps": 2}
    | {"use_resolution_binning": False},
    "motif": _FRAMES_5,
    "motif_i2v": _FRAMES_5,
    "cogvideox": _FRAMES_9,
    "cogvideox_2b": _FRAMES_9,
    "cogvideox_1_5": _FRAMES_9,
    "cogvideox_i2v": _FRAMES_9 | {"height": 32, "width": 32},
    "cogvideox_1_5_i2v": _FRAMES_9,
    "cogvideox_v2v": {"height": 16, "width": 16, "num_inference_steps": 2, "strength": 0.8},
    "cogvideox_fun_control": {"height": 16, "width": 16, "num_inference_steps": 2},
    "mochi": _FRAMES_5 | {"num_frames": 7},
    "allegro": _FRAMES_5 | {"num_frames": 24, "clean_caption": False},
    "latte": _IMAGE | {"video_length": 4, "clean_caption": False},
    "easyanimate": _FRAMES_5 | {"negative_prompt": ""},  # without one diffusers 0.42 fails
    "ltx_condition": _FRAMES_9 | {"height": 32, "width": 32},
    "ltx": _FRAMES_9 | {"height": 32, "width": 32},
    "ltx_i2v": _FRAMES_9 | {"height": 32, "width": 32},
    "hunyuan": _FRAMES_5,
    "hunyuan_skyreels_i2v": _FRAMES_5,
    "hunyuan_i2v": _FRAMES_5,
    "framepack": _FRAMES_9 | {"latent_window_size": 3, "height": 32, "width": 32},
    "cosmos3": _FRAMES_5 | {"enable_sound": True},
    **cosmos.SMALLEST,
    "hunyuan_1_5": _FRAMES_9,
    "hunyuan_1_5_i2v": {"num_frames": 9, "num_inference_steps": 2},
    "kandinsky": _FRAMES_5 | {"height": 32, "width": 32},
    "kandinsky_6": _FRAMES_5 | {"height": 32, "width": 32},
    "kandinsky_6_sr": {"resolution_scale": 2, "num_inference_steps": 2},
    "kandinsky_i2v": _FRAMES_5 | {"height": 32, "width": 32, "num_frames": 25},
    "opensora": _FRAMES_5 | {"height": 32, "width": 32, "max_sequence_length": 16},
    "opensora_dc": _FRAMES_5 | {"height": 64, "width": 32, "num_frames": 8, "max_sequence_length": 16},
    "animatediff": _FRAMES_5 | {"num_frames": 4},
    "animatediff_v2v": _IMAGE | {"strength": 0.8},
    "animatediff_xl": _FRAMES_5 | {"num_frames": 4},
    "animatediff_pag": _FRAMES_5 | {"num_frames": 4},
    "pia": _FRAMES_5 | {"num_frames": 4},
    "modelscope": _FRAMES_5 | {"num_frames": 4},
    "modelscope_v2v": {"num_inference_steps": 2, "strength": 0.8},
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
    "sd3_modular": _IMAGE,
    "helios_modular": _FRAMES_5 | {"num_frames": 33},
    "ltx2_modular": _FRAMES_9 | {"height": 32, "width": 32},
    "ltx2_5_modular": _FRAMES_9 | {"height": 32, "width": 32, "max_sequence_length": 32},
    "echo": {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": 32, "sigmas": [1.0, 0.0]},
    "qwen_modular": _IMAGE | {"height": 32, "width": 32},
    "z_image_modular": _IMAGE | {"height": 32, "width": 32},
    "anima": _IMAGE | {"height": 32, "width": 32},
    "flux3": _IMAGE | {"height": 32, "width": 32, "max_new_tokens": 8, "max_sequence_length": 80},
    "flux3_distilled": _IMAGE | {"height": 32, "width": 32, "max_new_tokens": 8, "max_sequence_length": 80},
    "wan_animate_2": {"height": 32, "width": 32, "segment_frame_length": 5, "num_inference_steps": 2},
    "minimax_h3": {"height": 32, "width": 32, "num_frames": 124, "num_inference_steps": 2},
    "ltx_upsampler": {"height": 32, "width": 32},
    "ltx2_upsampler": {"height": 32, "width": 32, "num_frames": 9},
    "ltx2": _LTX2,
    "ltx2_i2v": _LTX2,
    "ltx2_condition": _LTX2,
    "ltx2_in_context": _LTX2,
    "ltx2_dfr": {"height": 32, "width": 32, "num_frames": 9},
    "ltx_long": _FRAMES_9
    | {"height": 32, "width": 32, "decode_horizontal_tiles": 1, "decode_vertical_tiles": 1},
    **images.SMALLEST,
}
# One of each way in which rows share forwards, or cannot. Of tests that take all, `make test` runs these.
TYPICAL = (
    "wan",  # frames, with schedulers of several kinds
    "cogvideox",  # with a scheduler of its own, and guidance that changes
    "sd",  # a U-Net
    "ddpm",  # neither text nor an autoencoder
    "flux",  # packed latents, guidance as an input
    "svd",  # an image and no prompt, a guidance scale for each frame
    "wan_animate",  # videos, in windows
    "helios",  # in chunks, each from what was before
    "opensora",  # a network of ours
    "motif",  # guidance is the folder's
    "wan_modular",  # blocks
    "cosmos3",  # text, frames and sound in one sequence without a batch
    "pia",  # prompts once for each frame
    "framepack",  # text cut off alone, masked in company
)
# Those that make something else than frames in [0, 1]: sound alone, light beyond one, layers with alpha.
UNLIKE: dict[str, dict[str, Any]] = {
    "ltx2_hdr": _FRAMES_9 | {"height": 32, "width": 32, "max_sequence_length": 32},
    "stable_audio": {"num_inference_steps": 2, "audio_end_in_s": 0.2},
    "qwen_layered": {"num_inference_steps": 1, "layers": 2},
}
MEASURED = SMALLEST | UNLIKE  # by tools/conformance
# What a job says below `model:`, without which they render nothing.
OPTIONS: dict[str, dict[str, Any]] = {"allegro": {"vae_tiling": True}}
# What they start from, beside a prompt, and how many frames of it.
INPUTS: dict[str, dict[str, int]] = {
    "wan_ti2v_image": {"image": 1},
    "wan_i2v": {"image": 1},
    "wan_i2v_moe": {"image": 1},
    "wan_v2v": {"video": 5},
    "wan_animate": {"image": 1, "pose_video": 9, "face_video": 9},
    "wan_animate_2": {"image": 1, "driving_video": 9},
    "lucy": {"video": 5},
    "chronoedit": {"image": 1},
    "skyreels_i2v": {"image": 1},
    "skyreels_df_i2v": {"image": 1},
    "skyreels_df_v2v": {"video": 9},
    "sana_video_i2v": {"image": 1},
    "motif_i2v": {"image": 1},
    "hunyuan_skyreels_i2v": {"image": 1},
    "hunyuan_i2v": {"image": 1},
    "framepack": {"image": 1},
    "hunyuan_1_5_i2v": {"image": 1},
    "kandinsky_i2v": {"image": 1},
    "kandinsky_6_sr": {"video": 5},
    "qwen_layered": {"image": 1},
    "cogvideox_i2v": {"image": 1},
    "cogvideox_1_5_i2v": {"image": 1},
    "cogvideox_v2v": {"video": 9},
    "ltx_upsampler": {"video": 9},
    "ltx2_upsampler": {"video": 9},
    "cogvideox_fun_control": {"control_video": 9},
    "ltx_i2v": {"image": 1},
    "ltx_condition": {"image": 1},
    "ltx2_i2v": {"image": 1},
    **cosmos.INPUTS,
    "animatediff_v2v": {"video": 4},
    "pia": {"image": 1},
    "modelscope_v2v": {"video": 4},
    "opensora": {"last_image": 1},
    "svd": {"image": 1},
    **images.INPUTS,
}
# Keeps most pixels between black and white, and most sound between silence and full scale.
_DAMPED = {
    "vae.decoder.conv_out": 0.5,
    "vae.decoder.proj_out": 0.5,
    "movq.decoder.conv_out": 0.5,
    "vae.decoder.conv2": 0.02,
    "vocoder.conv_out": 1e-5,
}


def smallest_call(name: str, *, start: int = 0) -> dict[str, Any]:
    """Return the arguments of a plain call. start: the number of the picture or clip that it starts from."""
    inputs = {
        argument: clip(start, num_frames=count) if "video" in argument or count > 1 else picture(start)
        for argument, count in INPUTS.get(name, {}).items()
    }
    prompt = {} if name == "svd" else {"prompt": "a red ball"}
    return {**prompt, **SMALLEST[name], **inputs}


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
