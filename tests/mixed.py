"""Rows for the central promise, that frames are those of a plain call in any company: they differ in all."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from framefleet import Request, TableError
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.rows.tables.request_checks import checked
from tests.pictures import write_starts
from tests.tinies import autumn
from tests.tiny import INPUTS, MEASURED, tiny
from tests.unit.test_rows import Anything

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# At 16 x 16 Flux has one token and CogVideoX 1.5 two, whose positions look like the batch of a row.
LARGER = {"height": 32, "width": 32}
SIZES = MEASURED | {name: MEASURED[name] | LARGER for name in ("cogvideox_1_5", "cogvideox_1_5_i2v", "flux")}

Cells = Mapping[str, Any]  # one row of a table
# What rows draw from, where the pipeline takes it, beside seeds, sizes and schedulers.
CHOICES: dict[str, Sequence[Any]] = {
    "prompt": ("a red ball", "一只绿色的猫在雨中奔跑"),
    "negative_prompt": (None, "blurry, 低质量"),
    "num_inference_steps": (2, 3, 4),  # few, so that rows keep finishing and others join
    "guidance_scale": (3.0, 4.0, 5.5, 1.0),
    "guidance_rescale": (0.0, 0.7),
    "true_cfg_scale": (2.0, 3.0, 1.0),
    "max_sequence_length": (32,),
    "strength": (0.5, 0.8, 1.0),
}
TWO_STAGES: dict[str, Sequence[Any]] = {"guidance_scale_2": (None, 1.0, 4.0)}
OWN_LENGTH: dict[str, Sequence[Any]] = {"max_sequence_length": (None,)}
GUIDED: dict[str, Sequence[Any]] = {"guidance_scale": (3.0, 4.0, 5.5)}  # without, diffusers itself fails
OF_TEXT: dict[str, Sequence[Any]] = {"strength": (None,)}  # of blocks that start from an image
TWO_STEPS: dict[str, Sequence[Any]] = {"num_inference_steps": (2,)}
UNION: dict[str, Sequence[Any]] = {"control_mode": (0, 1)}
NEGATIVE: dict[str, Sequence[Any]] = {"negative_prompt": ("", "blurry, 低质量")}
SQUARE = ("picture-1.png",)
# So that rows meet, where a worker is quick or strength leaves one step.
LONGER: dict[str, Sequence[Any]] = {"num_inference_steps": (4, 6), "strength": (0.8, 1.0)}
# By tiny pipeline: what only its rows draw from.
MORE: dict[str, dict[str, Sequence[Any]]] = {
    "wan": OWN_LENGTH,
    "wan_moe": TWO_STAGES | OWN_LENGTH,
    "wan_i2v_moe": TWO_STAGES | {"last_image": (None, "picture-0.png")},
    "wan_modular": GUIDED,
    "wan_moe_modular": GUIDED,
    "wan_i2v_modular": GUIDED | {"image": SQUARE},  # of another shape, 16 pixels become none
    "wan_moe_i2v_modular": GUIDED | {"image": SQUARE},
    "wan_moe_vace_modular": GUIDED,
    "hunyuan_1_5_modular": GUIDED,
    "ltx_modular": GUIDED,
    "flux_modular": OF_TEXT,
    "sd3_modular": OF_TEXT,
    "qwen_modular": OF_TEXT,
    "z_image_modular": OF_TEXT,
    "sdxl_modular": OF_TEXT,
    "anima": OF_TEXT,
    "cosmos3_distilled": TWO_STEPS | {"guidance_scale": (None,)},
    "sana_sprint": TWO_STEPS,
    "sana_sprint_img2img": TWO_STEPS,
    "wan_animate": {"motion_encode_batch_size": (1,)},
    "easyanimate": NEGATIVE,
    "cogvideox_2b": OWN_LENGTH | {"use_dynamic_cfg": (False, True)},
    "cogvideox_i2v": OWN_LENGTH,
    "echo": {"sigmas": ([1.0, 0.9, 0.7, 0.4, 0.0], [1.0, 0.8, 0.6, 0.3, 0.1, 0.0])},
    "opensora": {"image_guidance_scale": (1.0, 3.0), "flow_shift": (None, 3.0), "motion_score": (1, 4)}
    | {"image": (None, "picture-0.png"), "frame_rate": (12, 24)},
    "hunyuan_dit_pag": GUIDED,
    "sdxl_union": UNION,
    "sdxl_union_img2img": UNION,
    "sdxl_union_inpaint": UNION,
    "sd_pag_inpaint": {"guidance_rescale": (0.0,)},  # with another diffusers itself fails
    "sd_latent_upscale": {"image": SQUARE},  # its network takes no side that cannot be halved
    "if_img2img": LONGER,
    "qwen_edit_inpaint": LONGER,
    "kandinsky3_img2img": LONGER | {"image": SQUARE},  # so does this one's
    "if_inpaint": {"image": SQUARE, "mask_image": SQUARE},  # of one shape
    "if_sr_inpaint": LONGER | {"original_image": SQUARE, "mask_image": SQUARE},
    "sd_semantic": {"editing_prompt": (None, "smiling"), "reverse_editing_direction": (False, True)},
    "helios_pyramid_modular": GUIDED | NEGATIVE,
    "qwen_edit_modular": OF_TEXT,
    "qwen_edit_plus_modular": OF_TEXT,
    "pndm": {"num_inference_steps": (4, 5, 6)},
    "text_to_video_zero": GUIDED,
    "repaint": {"image": SQUARE, "mask_image": SQUARE},  # of one shape
    "versatile_variation": {"negative_prompt": (None,)},  # it takes a picture there
    "sd_upscale": {"noise_level": (0, 20)},
    "sd_panorama": {"view_batch_size": (1, 2), "circular_padding": (False, True)},
    "ddim": {"eta": (0.0, 0.5)},
    "consistency": {"class_labels": (None, 3, 7)},
    "ideogram4": {"guidance_scale": (None,), "num_inference_steps": (2,)},
    "ideogram4_modular": {"guidance_scale": (None,), "num_inference_steps": (2,)},
    "kandinsky_i2i": OWN_LENGTH,
    "fibo_edit": {"prompt": (autumn.EDIT_PROMPT, '{"edit_instruction": "只一猫"}')},
    "dit": {"class_labels": ([1], [0])},
    "svd": {"min_guidance_scale": (0.5, 1.0), "max_guidance_scale": (1.0, 3.0), "fps": (6, 7)}
    | {"motion_bucket_id": (40, 127), "noise_aug_strength": (0.02, 0.1), "decode_chunk_size": (None, 2)},
    "sd3": {"prompt_3": (None, "another")},
}
# Of several pictures they make one; those of text alone take some too.
_PAIR = ["picture-0.png", "picture-1.png"]
LISTED: dict[str, dict[str, Sequence[Any]]] = {
    "wan_vace": {"reference_images": (None, ["picture-2.png"], _PAIR)},
    "echo": {"memory_images": (None, ["picture-2.png"], _PAIR), "image": (None, "picture-0.png")},
    "sd_controlnets": {"controlnet_conditioning_scale": ([0.8, 0.8], [1.0, 0.5])},
}
MORE |= {name: MORE.get(name, {}) | listed for name, listed in LISTED.items()}
# Fewer steps, and rows end before others join them.
MORE["amused_img2img"] = {"strength": (0.8, 1.0), "num_inference_steps": (6, 8, 9)}
# HunyuanVideo 1.5 pads every prompt to a thousand tokens; GLM-Image draws some hundred tokens for a picture.
MANY, NUM_ROWS = (
    10,
    {"hunyuan_1_5": 5, "hunyuan_1_5_i2v": 5, "glm_image": 4, "kandinsky_6_sr": 4, "ltx2_modular": 4}
    # at a megapixel, whatever is asked for
    | {"qwen_edit_inpaint": 8, "longcat_edit": 4, "joy_edit": 4, "kandinsky_t2i": 6, "kandinsky_i2i": 4}
    | {"qwen_edit_modular": 3, "qwen_edit_plus_modular": 3, "qwen_layered": 6, "qwen_layered_modular": 6}
    | {"shap_e": 6, "shap_e_img2img": 6},
)

# By tiny pipeline that starts from larger pictures alone: how many times as large.
SCALES = {"repaint": 2, "kandinsky3_img2img": 2, "ldm_super_resolution": 3, "sd_latent_upscale": 2}

# diffusers itself fails with others, or where they are not those of the picture.
ONE_SIZE = (
    "hidream",
    "sd_attend",
    "unidiffuser",
    "kandinsky21_img2img",
    "sd_panorama",
    "z_image_img2img",
    "z_image_inpaint",
)

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
KARRAS = {"use_karras_sigmas": True}
# By the name in a row: what a plain script writes, `Class.from_config(pipe.scheduler.config, **changes)`.
Schedulers = dict[str | None, tuple[str, dict[str, Any]] | None]
OWN: Schedulers = {None: None}
WAN = OWN | {
    "unipc": ("UniPCMultistepScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "flow_euler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
}
COGVIDEOX = OWN | {"cogvideox_dpm": ("CogVideoXDPMScheduler", {})}
SD = OWN | {
    "ddpm": ("DDPMScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "euler_karras": ("EulerDiscreteScheduler", KARRAS),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", KARRAS),
    "unipc": ("UniPCMultistepScheduler", {}),
}
SCHEDULERS: dict[str, Schedulers] = {
    "wan": WAN,
    "wan_ti2v": WAN,
    "wan_i2v": WAN,
    "cogvideox": COGVIDEOX,
    "cogvideox_1_5": COGVIDEOX,
    "cogvideox_v2v": COGVIDEOX,
    "ltx": OWN | {"unipc": ("UniPCMultistepScheduler", FLOW)},
    "opensora": OWN | {"unipc": ("UniPCMultistepScheduler", FLOW)},
    "animatediff": OWN | {"euler_karras": SD["euler_karras"]},
    "sd": SD,
    "sdxl": OWN | {"ddim": SD["ddim"]},
    "sd3": OWN | {"dpmpp_2m": ("DPMSolverMultistepScheduler", FLOW | {"flow_shift": 3.0})},
    "flux": OWN | {"dpmpp_2m": ("DPMSolverMultistepScheduler", FLOW | {"flow_shift": 3.0})},
}


def mixed_table(name: str, folder: Path, *, most: int = MANY) -> list[Cells]:
    """Return a table's rows, shuffled, of two sizes where the model renders another one than its smallest.

    The files that they start from are written into `folder`.
    """
    spec, draw = inspect_model(tiny(name)), random.Random(name)
    schedulers = SCHEDULERS.get(name, OWN)
    choices = _choices(name, spec, folder)
    rows = []
    for seed in range(min(most, NUM_ROWS.get(name, most))):
        scheduler = list(schedulers)[seed % len(schedulers)]
        row = {**SIZES[name], "seed": seed, "scheduler": scheduler}
        row |= {argument: draw.choice(values) for argument, values in choices.items()}
        if name == "sd":
            row["eta"] = draw.choice([0.0, 0.5]) if scheduler in (None, "ddim") else None
        rows.append(row)
    if "width" in SIZES[name] and name not in ONE_SIZE:
        wider = [row | {"width": 2 * row["width"]} for row in rows]
        if all(_is_rendered(row, spec) for row in wider):
            rows[2::5] = wider[2::5]
    draw.shuffle(rows)
    return rows


def _choices(name: str, spec: PipelineSpec, folder: Path) -> dict[str, Sequence[Any]]:
    settable = spec.settable()
    choices = {argument: values for argument, values in CHOICES.items() if argument in settable}
    for argument in MEASURED[name].keys() & choices.keys() - {"num_inference_steps", "strength"}:
        choices[argument] = (MEASURED[name][argument],)
    choices |= MORE.get(name, {})
    if name in LISTED:
        write_starts(folder, num_frames=1)
    for argument, num_frames in INPUTS.get(name, {}).items():
        if num_frames > 1 and argument.startswith("image"):  # a list of so many pictures
            files = write_starts(folder, num_frames=1)
            choices[argument] = [list(some) for some in itertools.permutations(files, num_frames)]
            continue
        files = write_starts(folder, num_frames=num_frames, scale=SCALES.get(name, 1))
        some = [*files, None] if argument == "last_image" else files  # not every row has one
        choices[argument] = MORE.get(name, {}).get(argument, some)
    return choices


def _is_rendered(row: Cells, spec: PipelineSpec) -> bool:
    arguments = {k: v for k, v in row.items() if v is not None and k not in ("seed", "scheduler")}
    try:
        checked(Request(arguments=arguments), spec, BUILT_IN["generate"], finder=Anything())
    except TableError:
        return False
    return True
