"""The central promise: a row's frames are those of a plain diffusers call, whatever its company."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import diffusers
import numpy as np
import torch
from PIL import Image

from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.outputs.frames import frames_sha256
from tests.jobs import job_values, write_table
from tests.pictures import write_starts
from tests.tiny import INPUTS, SMALLEST, tiny

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# At 16 x 16 Flux has one token and CogVideoX 1.5 two, whose positions look like the batch of a row.
LARGER = {"height": 32, "width": 32}
SIZES = SMALLEST | {name: SMALLEST[name] | LARGER for name in ("cogvideox_1_5", "cogvideox_1_5_i2v", "flux")}

Cells = Mapping[str, Any]  # one row of a table
TEXT: dict[str, Sequence[Any]] = {
    "prompt": ("a red ball", "一只绿色的猫在雨中奔跑", "a dog runs " * 3, "海"),
    "negative_prompt": (None, "blurry, 低质量"),
    "guidance_scale": (1.0, 3.0, 5.5),
}
SHORT = {"max_sequence_length": (32,)}
TWO_STAGES: dict[str, Sequence[Any]] = {"guidance_scale_2": (None, 1.0, 4.0)}
# By tiny pipeline: what its rows draw from, beside seeds, steps and schedulers.
CHOICES: dict[str, dict[str, Sequence[Any]]] = {
    "wan": TEXT,
    "wan_moe": TEXT | TWO_STAGES,
    "wan_ti2v": TEXT | SHORT,
    "wan_ti2v_image": TEXT | SHORT,
    "wan_i2v": TEXT,
    "wan_i2v_moe": TEXT | TWO_STAGES | SHORT | {"last_image": (None, "picture-0.png")},
    "wan_v2v": TEXT | SHORT | {"strength": (0.5, 0.8, 1.0)},
    "cogvideox": TEXT,
    "cogvideox_2b": TEXT | {"use_dynamic_cfg": (False, True)},
    "cogvideox_1_5": TEXT,
    "cogvideox_i2v": TEXT,
    "cogvideox_1_5_i2v": TEXT,
    "cogvideox_v2v": TEXT | {"strength": (0.5, 0.8, 1.0)},
    "ltx": TEXT | {"guidance_rescale": (0.0, 0.7)},
    "ltx_i2v": TEXT,
    "hunyuan": TEXT | SHORT | {"true_cfg_scale": (1.0, 3.0)},
    "opensora": TEXT
    | {"image_guidance_scale": (1.0, 3.0), "flow_shift": (None, 3.0), "motion_score": (1, 4)}
    | {"image": (None, "picture-0.png"), "frame_rate": (12, 24)},
    "animatediff": TEXT,
    "svd": {
        "min_guidance_scale": (0.5, 1.0),
        "max_guidance_scale": (1.0, 3.0),
        "fps": (6, 7),
        "motion_bucket_id": (40, 127),
        "noise_aug_strength": (0.02, 0.1),
        "decode_chunk_size": (None, 2),
    },
    "sd": TEXT | {"guidance_rescale": (0.0, 0.7)},
    "sdxl": TEXT | {"guidance_rescale": (0.0, 0.7)},
    "sd3": TEXT | SHORT | {"prompt_3": (None, "another")},
    "flux": TEXT | {"true_cfg_scale": (1.0, 3.0)},
}
STEPS = (2, 3, 4)  # few, so that rows keep finishing and others join
MANY, FEW = ("wan", "sd"), 16  # on a fleet, which needs many to share; and of each other pipeline

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


def mixed_table(name: str, folder: Path) -> list[Cells]:
    """Return a table's rows, shuffled; the files that they start from are written into `folder`."""
    draw = random.Random(name)
    schedulers = SCHEDULERS.get(name, OWN)
    choices = dict(CHOICES[name])
    for argument, num_frames in INPUTS.get(name, {}).items():
        files = write_starts(folder, num_frames=num_frames)
        choices[argument] = [*files, None] if argument == "last_image" else files  # not every row has one
    rows = []
    for seed in range(64 if name in MANY else FEW):
        scheduler = draw.choice(list(schedulers))
        row = {**SIZES[name], "num_inference_steps": draw.choice(STEPS), "seed": seed, "scheduler": scheduler}
        row |= {argument: draw.choice(values) for argument, values in choices.items()}
        if name == "sd":
            row["eta"] = draw.choice([0.0, 0.5]) if scheduler in (None, "ddim") else None
        rows.append(row)
    draw.shuffle(rows)
    return rows


def mixed_job(
    name: str, dtype: str, rows: Sequence[Cells], folder: Path, *, address: str | None = None
) -> dict[str, Any]:
    """Return a job that renders such rows into `out` in `folder`, every size of forward probed."""
    return job_values(
        write_table(folder / "prompts.parquet", rows), folder / "out", model=name, address=address
    ) | {
        "model": {"path": str(tiny(name)), "dtype": dtype},
        "defaults": {},
        "batching": {"max_rows": 8 if name == "wan" else 4, "min_gain": 0},
    }


def plain_digests(name: str, dtype: torch.dtype, rows: Sequence[Cells], folder: Path) -> Iterator[str]:
    """What a script without framefleet renders, one row after the other. folder: of the rows' files."""
    model = tiny(name)
    class_name = json.loads((model / "model_index.json").read_text())["_class_name"]
    pipe = class_named(class_name).from_pretrained(model, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    own = pipe.scheduler
    for row in rows:
        choice = SCHEDULERS.get(name, OWN)[row["scheduler"]]
        pipe.scheduler = own
        if choice is not None:
            scheduler_class, changes = getattr(diffusers, choice[0]), choice[1]
            pipe.scheduler = scheduler_class.from_config(own.config, **changes)
        given = {k: v for k, v in row.items() if v is not None and k not in ("seed", "scheduler")}
        given |= {k: _opened(folder / v) for k, v in given.items() if k in ("image", "last_image", "video")}
        generator = torch.Generator("cpu").manual_seed(row["seed"])
        output = pipe(**given, generator=generator, output_type="np")
        frames = output.frames[0] if hasattr(output, "frames") else output.images
        yield frames_sha256((frames * 255).round().astype(np.uint8))


def _opened(path: Path) -> Image.Image | list[Image.Image]:
    if path.suffix == ".png":
        return Image.open(path).convert("RGB")
    with av.open(str(path)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]
