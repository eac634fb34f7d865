"""The jobs of docs/new_models.md: `plan` of a tiny model of each class shows sizes, license and memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import framefleet
from tests.jobs import ROOT, write_table
from tests.long import long_but
from tests.pictures import write_starts
from tests.tiny import INPUTS, SMALLEST, tiny

PAGE = (ROOT / "docs" / "new_models.md").read_text(encoding="utf-8")
JOBS = {job["model"]: job for job in map(yaml.safe_load, re.findall(r"(?:^    .*\n)+", PAGE, re.MULTILINE))}
TINIES = {
    "MiniMaxAI/MiniMax-H3": "minimax_h3",
    "diffusers/LTX-2.3-Distilled-Diffusers": "ltx2",
    "./FLUX.3-distilled": "flux3_distilled",
    "Qwen/Qwen-Image-2.1": "qwen_2_1",
    "Wan-AI/Wan2.2-Animate-2-14B-Diffusers": "wan_animate_2",
    "ideogram-ai/ideogram-4-nf4-diffusers": "ideogram4",
    "Efficient-Large-Model/SANA-WM_bidirectional-diffusers": "sana_wm",
    "briaai/Fibo-2.0-dev": "fibo2",
    "krea/Krea-2-Turbo": "krea2_turbo",
}
SHORT = (
    *("MiniMaxAI/MiniMax-H3", "krea/Krea-2-Turbo"),
    # One writes its prompts by a language model, and one computes with `torch.autocast`.
    *("./FLUX.3-distilled", "Efficient-Large-Model/SANA-WM_bidirectional-diffusers"),
)
# Whose license the publisher states for all weights of its class.
LICENSED = {
    "minimax_h3": "minimax-h3",
    "qwen_2_1": "qwen-research",
    "krea2_turbo": "krea-2-community",
    "ideogram4": "ideogram-4-non-commercial",
    "sana_wm": "apache-2.0",
}


def values_of(job: dict[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """Return the page's job with the tiny model in place of the real one, and its sizes."""
    row: dict[str, Any] = {"prompt": "a red ball"}
    for argument, num_frames in INPUTS.get(name, {}).items():
        row[argument] = write_starts(folder, num_frames=num_frames)[0]
    sizes = {key: value for key, value in SMALLEST[name].items() if key != "num_inference_steps"}
    defaults = {key: value for key, value in job["defaults"].items() if key != "lora"} | sizes
    if "sigmas" in defaults:
        defaults.pop("num_inference_steps", None)
    return {
        **{key: value for key, value in job.items() if key != "loras"},
        "table": str(write_table(folder / "t.parquet", [row])),
        "output": str(folder / "out"),
        "model": str(tiny(name)),
        "defaults": defaults,
    }


assert JOBS.keys() == TINIES.keys()


@pytest.mark.parametrize("model", long_but(TINIES, *SHORT))
def test_plan_of_the_same_class_is_complete(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = TINIES[model]
    plan = framefleet.plan(values_of(JOBS[model], name, tmp_path), gpu_memory="80GB")
    assert plan.num_invalid == 0, plan.invalid
    assert {"height", "width"} <= {argument.name for argument in plan.arguments}
    assert plan.memory.missing == ""
    assert plan.memory.activations_gb and plan.memory.decoding_gb and plan.memory.encoding_gb
    assert "of 80.0 GB of the GPU" in plan.memory.line
    assert LICENSED.get(name, "model.license") in plan.license


def test_sizes_that_the_pipeline_decides_are_in_the_table_of_arguments(tmp_path: Path) -> None:
    values = values_of(JOBS["MiniMaxAI/MiniMax-H3"], "minimax_h3", tmp_path)
    defaults = {key: value for key, value in values["defaults"].items() if key not in ("height", "width")}
    plan = framefleet.plan(values | {"defaults": defaults})
    origins = {argument.name: (argument.value, argument.origin) for argument in plan.arguments}
    assert origins["height"] == origins["width"] == (None, "the pipeline decides")
    assert plan.memory.decoding_gb > 0
