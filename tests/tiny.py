"""Build tiny random-weight diffusers pipeline folders: real classes, the same bytes every time."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ModularPipeline

from tests.pictures import clip, picture
from tests.random_weights import fill_weights
from tests.tinies import (
    cogvideox,
    cosmos,
    diffusion_transformers,
    flux_kin,
    hunyuan,
    image,
    images,
    kandinsky,
    ltx2,
    minimax_h3,
    modular,
    opensora,
    qwen_kin,
    sana,
    sound,
    video,
    wan,
)
from tests.tinies.table import FRAMES_5, FRAMES_9, IMAGE, LARGER, STEPS, UNBINNED, Tinies, of

_TINIES: Tinies = {
    "anyflow": (wan.anyflow, FRAMES_5, ()),
    "anyflow_far": (wan.anyflow_far, FRAMES_9, ()),
    "chronoedit": (wan.chronoedit, FRAMES_5 | {"max_sequence_length": 512}, ("image",)),
    "helios": (diffusion_transformers.helios, FRAMES_5 | {"num_frames": 33}, ()),
    "helios_pyramid": (
        diffusion_transformers.helios_pyramid,
        {"height": 64, "width": 64, "num_frames": 33},
        (),
    ),
    "sana_video": (sana.sana_video, LARGER | UNBINNED | {"frames": 5}, ()),
    "sana_video_i2v": (sana.sana_video_i2v, LARGER | UNBINNED | {"frames": 5}, ("image",)),
    "motif": (diffusion_transformers.motif, FRAMES_5, ()),
    "motif_i2v": (diffusion_transformers.motif_i2v, FRAMES_5, ("image",)),
    "mochi": (diffusion_transformers.mochi, FRAMES_5 | {"num_frames": 7}, ()),
    "allegro": (diffusion_transformers.allegro, FRAMES_5 | {"num_frames": 24, "clean_caption": False}, ()),
    "latte": (diffusion_transformers.latte, IMAGE | {"video_length": 4, "clean_caption": False}, ()),
    # Without a negative prompt diffusers 0.42 fails.
    "easyanimate": (diffusion_transformers.easyanimate, FRAMES_5 | {"negative_prompt": ""}, ()),
    "ltx": (video.ltx, FRAMES_9 | LARGER, ()),
    "ltx_condition": of("LTXConditionPipeline", video.ltx_unshifted, FRAMES_9 | LARGER, "image"),
    # Window by window, each of which may have a prompt of its own.
    "ltx_long": of(
        "LTXI2VLongMultiPromptPipeline",
        video.ltx_unshifted,
        FRAMES_9 | LARGER | {"decode_horizontal_tiles": 1, "decode_vertical_tiles": 1},
    ),
    "ltx_i2v": of("LTXImageToVideoPipeline", video.ltx_parts, FRAMES_9 | LARGER, "image"),
    "ltx_upsampler": (video.ltx_upsampler, {"height": 32, "width": 32}, {"video": 9}),
    "hunyuan": (hunyuan.hunyuan, FRAMES_5, ()),
    "animatediff": (video.animatediff, FRAMES_5 | {"num_frames": 4}, ()),
    "svd": (video.svd, FRAMES_5 | {"num_frames": 4}, ("image",)),
    "hunyuan_skyreels_i2v": (hunyuan.hunyuan_skyreels_i2v, FRAMES_5, ("image",)),
    "framepack": (hunyuan.framepack, FRAMES_9 | LARGER | {"latent_window_size": 3}, ("image",)),
    "hunyuan_1_5": (hunyuan.hunyuan_1_5, FRAMES_9, ()),
    "hunyuan_1_5_i2v": (hunyuan.hunyuan_1_5_i2v, STEPS | {"num_frames": 9}, ("image",)),
    "hunyuan_i2v": (hunyuan.hunyuan_i2v, FRAMES_5, ("image",)),
    "cosmos3": (cosmos.cosmos3, FRAMES_5 | {"enable_sound": True}, ()),
    "kandinsky": (kandinsky.kandinsky, FRAMES_5 | LARGER, ()),
    "kandinsky_i2v": (kandinsky.kandinsky_i2v, FRAMES_5 | LARGER | {"num_frames": 25}, ("image",)),
    "kandinsky_6": (kandinsky.kandinsky_6, FRAMES_5 | LARGER, ()),
    "kandinsky_6_sr": (kandinsky.kandinsky_6_sr, STEPS | {"resolution_scale": 2}, {"video": 5}),
    "opensora": (opensora.opensora, FRAMES_5 | LARGER | {"max_sequence_length": 16}, ("last_image",)),
    "opensora_dc": (
        opensora.opensora_dc,
        FRAMES_5 | {"height": 64, "width": 32, "num_frames": 8, "max_sequence_length": 16},
        (),
    ),
    "animatediff_pag": of("AnimateDiffPAGPipeline", video.animatediff, FRAMES_5 | {"num_frames": 4}),
    "sd": (image.sd, IMAGE, ()),
    "sdxl": (image.sdxl, IMAGE, ()),
    "sd3": (image.sd3, IMAGE, ()),
    "flux": (flux_kin.flux, IMAGE, ()),
    "minimax_h3": (minimax_h3.minimax_h3, LARGER | {"num_frames": 124}, ()),
    "wan_animate_2": (
        wan.wan_animate_2,
        LARGER | {"segment_frame_length": 5},
        {"image": 1, "driving_video": 9},
    ),
    "flux3": (flux_kin.flux3, LARGER | {"max_new_tokens": 8, "max_sequence_length": 80}, ()),
    "flux3_distilled": (
        flux_kin.flux3_distilled,
        LARGER | {"max_new_tokens": 8, "max_sequence_length": 80},
        (),
    ),
    **wan.TINIES,
    **cogvideox.TINIES,
    **ltx2.TINIES,
    **video.TINIES,
    **modular.TINIES,
    **cosmos.TINIES,
    **images.TINIES,
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
_UNLIKE: Tinies = {
    "ltx2_hdr": of("LTX2HDRPipeline", ltx2.parts, FRAMES_9 | LARGER | {"max_sequence_length": 32}),
    "stable_audio": (sound.stable_audio, STEPS | {"audio_end_in_s": 0.2}, ()),
    "qwen_layered": (qwen_kin.qwen_layered, {"num_inference_steps": 1, "layers": 2}, ("image",)),
}
_MEASURED = _TINIES | _UNLIKE  # by tools/conformance
BUILDERS = {name: build for name, (build, _, _) in _MEASURED.items()} | {"wan_known": wan.wan_known}
SMALLEST = {name: call for name, (_, call, _) in _TINIES.items()}
UNLIKE = {name: call for name, (_, call, _) in _UNLIKE.items()}
MEASURED = SMALLEST | UNLIKE
# What they start from, beside a prompt, and how many frames of it.
INPUTS = {
    name: dict(inputs) if isinstance(inputs, Mapping) else dict.fromkeys(inputs, 1)
    for name, (_, _, inputs) in _MEASURED.items()
    if inputs
}
# What a job says below `model:`, without which they render nothing.
OPTIONS: dict[str, dict[str, Any]] = {"allegro": {"vae_tiling": True}}
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
