"""Few-step models: the jobs of docs/few_steps.md, and rows that list their own noise levels or timesteps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import yaml

from framefleet import Request, replay, replay_script
from framefleet.pipeline.model.registry import class_named
from framefleet.pipeline.model.specs.spec import inspect_model
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from tests.here import render_here, run_script
from tests.jobs import ROOT, job_values, records_of, write_table
from tests.loras import plain_digest, plain_pipe, save_lora
from tests.mixed import SIZES
from tests.pictures import clip, write_starts
from tests.tiny import SMALLEST, tiny

PAGE = (ROOT / "docs" / "few_steps.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?:^    .*\n)+", PAGE, re.MULTILINE)
JOBS = [yaml.safe_load(block) for block in BLOCKS if "loras:" in block]
KINDS = ("style", "detail")  # of the tiny LoRAs
TINIES = {
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd",
    "Qwen/Qwen-Image": "qwen_image",
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": "wan_moe",
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": "wan",
}
# What a script writes in place of each `scheduler` of the page.
TRAILING = {"timestep_spacing": "trailing"}
SCRIPTS: dict[str, tuple[str, dict[str, Any]]] = {
    "euler(timestep_spacing=trailing)": ("EulerDiscreteScheduler", TRAILING),
    "lcm": ("LCMScheduler", {}),
    "ddim(timestep_spacing=trailing)": ("DDIMScheduler", TRAILING),
    "flow_euler(base_shift=1.0986122886681098, max_shift=1.0986122886681098, shift_terminal=none)": (
        "FlowMatchEulerDiscreteScheduler",
        {"base_shift": 1.0986122886681098, "max_shift": 1.0986122886681098, "shift_terminal": None},
    ),
    "flow_euler(shift=5)": ("FlowMatchEulerDiscreteScheduler", {"shift": 5}),
}
PROMPTS = ("a red ball", "一只猫!", "a blue box")  # of as many bytes, since Qwen-Image pads no prompts
ROWS = [{"prompt": prompt, "seed": seed} for seed, prompt in enumerate(PROMPTS)]


assert len(JOBS) == 6


@pytest.mark.parametrize("job", JOBS, ids=lambda job: f"{job['model']}-{'-'.join(job['loras'])}")
def test_rows_in_company_are_what_a_script_with_the_lora_and_its_scheduler_renders(
    job: dict[str, Any], tmp_path: Path
) -> None:
    name = TINIES[job["model"]]
    files = {
        lora: save_lora(name, kind, tmp_path / lora) for lora, kind in zip(job["loras"], KINDS, strict=False)
    }
    sizes = {key: value for key, value in SMALLEST[name].items() if key != "num_inference_steps"}
    values = job_values(write_table(tmp_path / "t.parquet", ROWS), tmp_path / "out", model=name)
    values |= {"defaults": sizes | job["defaults"], "model": {"path": str(tiny(name)), "dtype": "fp32"}}
    values["loras"] = {
        lora: {"path": str(files[lora])} | ({"component": given["component"]} if "component" in given else {})
        for lora, given in job["loras"].items()
    }
    output, _ = render_here(values)
    found = {record["seed"]: record["frames_sha256"] for record in records_of(output)}
    assert found == _plain(job, name, files)
    assert len(set(found.values())) == len(ROWS)


def _plain(job: dict[str, Any], name: str, files: dict[str, Path]) -> dict[int, str]:
    pipe = plain_pipe(name, torch.float32)
    for lora, file in files.items():
        more = {"load_into_transformer_2": True} if "component" in job["loras"][lora] else {}
        pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=lora, **more)
    class_name, settings = SCRIPTS[job["defaults"]["scheduler"]]
    pipe.scheduler = class_named(class_name).from_config(pipe.scheduler.config, **settings)
    given = SMALLEST[name] | job["defaults"]
    given = {key: value for key, value in given.items() if key not in ("lora", "scheduler")}
    return {
        seed: plain_digest(pipe, Request(arguments=given | {"prompt": prompt}, seed=seed), {})
        for seed, prompt in enumerate(PROMPTS)
    }


LCM, EULER = ("lcm", "LCMScheduler"), ("euler", "EulerDiscreteScheduler")
# By tiny pipeline: each row's scheduler by our name and diffusers', and the argument that it lists.
LISTED: dict[str, list[tuple[tuple[str, str] | None, str, list[float]]]] = {
    "wan_v2v": [
        (("flow_euler", "FlowMatchEulerDiscreteScheduler"), "timesteps", [999, 750, 400]),
        (("flow_euler", "FlowMatchEulerDiscreteScheduler"), "timesteps", [900, 500]),
    ],
    "sdxl": [
        (LCM, "timesteps", [999, 759, 499, 259]),
        (LCM, "timesteps", [999, 499]),
        (EULER, "sigmas", [14.6, 6.0, 2.9, 0.5]),
        (EULER, "timesteps", [999, 300]),
    ],
    "flux": [(None, "sigmas", [1.0, 0.75, 0.5, 0.25]), (None, "sigmas", [1.0, 0.5])],
}


# Tuples to the pipeline: of some rows of SDXL.
PAIRS = {"original_size": (64, 48), "crops_coords_top_left": (4, 8)}


def rows_of(name: str, folder: Path) -> list[dict[str, Any]]:
    starts = write_starts(folder, num_frames=5) if name == "wan_v2v" else [None] * 4
    size = {key: value for key, value in SIZES[name].items() if key != "num_inference_steps"}
    rows = []
    for seed, (scheduler, argument, steps) in enumerate(LISTED[name]):
        lists = {each: None for _, each, _ in LISTED[name]} | {argument: steps}
        row = {**size, "prompt": f"a red ball {seed}", "seed": seed, **lists}
        row["scheduler"] = scheduler[0] if scheduler else None
        if name == "sdxl":
            row |= {pair: list(value) if seed % 2 == 0 else None for pair, value in PAIRS.items()}
        rows.append(row | ({"video": starts[seed], "strength": 1.0} if starts[seed] else {}))
    return rows


def listed_digest(pipe: Any, row: dict[str, Any], scheduler: tuple[str, str] | None) -> str:
    """Return the frames of a script without framefleet, which says nothing of the number of steps."""
    own = pipe.scheduler
    if scheduler:
        changes = {"shift": own.config.flow_shift} if scheduler[0] == "flow_euler" else {}
        pipe.scheduler = getattr(diffusers, scheduler[1]).from_config(own.config, **changes)
    given = {key: value for key, value in row.items() if value is not None}
    del given["seed"]
    given.pop("scheduler", None)
    given |= {pair: value for pair, value in PAIRS.items() if pair in given}
    if "video" in given:
        given["video"] = clip(row["seed"], num_frames=5)
    generator = Request(arguments={}, seed=row["seed"]).generator()
    frames = to_frames(pipe(**given, generator=generator, output_type="np"))
    pipe.scheduler = own
    return frames_sha256(frames)


@pytest.mark.parametrize("name", LISTED)
def test_rows_of_listed_steps_have_the_frames_of_plain_calls(name: str, tmp_path: Path) -> None:
    rows, model = rows_of(name, tmp_path), tiny(name)
    values = job_values(write_table(tmp_path / "t.parquet", rows), tmp_path / "out")
    values |= {"model": {"path": str(model), "dtype": "fp32"}, "defaults": {}, "inputs": {"fit": "stretch"}}
    output, row_ids = render_here(values)
    found = {record["seed"]: record["frames_sha256"] for record in records_of(output)}
    pipe = class_named(inspect_model(model).class_name).from_pretrained(model)
    listed = zip(rows, LISTED[name], strict=True)
    assert found == {row["seed"]: listed_digest(pipe, row, scheduler) for row, (scheduler, *_) in listed}
    if name == "wan_v2v":
        assert replay(output, row_ids[0]).is_equal
    else:
        assert run_script(replay_script(output, row_ids[0])).startswith("the same frames: ")
