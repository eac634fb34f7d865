"""The jobs of docs/few_steps.md on tiny models: distilling LoRAs and their schedulers, exact in a batch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from framefleet import Request
from framefleet.pipeline.model.registry import class_named
from tests.here import render_here
from tests.jobs import ROOT, job_values, records_of, write_table
from tests.loras import plain_digest, plain_pipe, save_lora
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
