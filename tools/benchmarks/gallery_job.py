"""A real job for a gallery: prompts, hostile ones too, x guidance scales x seeds; scores, and failures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from framefleet.plugins.demo.prepare import MODEL
from tests.gallery_output import HOSTILE
from tools.shapes.scenes import captions, held_out_scenes

NUM_SCENES = 60  # each said in English and in Chinese
NUM_SEEDS = 20
GUIDANCE_SCALES = (1, 2.5, 4, 7)
FAILING = "a poison ball bounces on black"  # see tests.faults.raises


def write_gallery_job(folder: Path, *, num_scenes: int = NUM_SCENES, num_seeds: int = NUM_SEEDS) -> Path:
    """Write job.yaml for an output in `folder`; return its path.

    As it stands 127 prompts x 4 guidance scales x 20 seeds are 10,160 rows: 10,080 records and 80 failures.
    """
    scenes = held_out_scenes(num_scenes, seed=0)
    told = [text for number, scene in enumerate(scenes) for text in captions(scene, seed=number).values()]
    job: dict[str, Any] = {
        "output": str(folder / "out"),
        "model": str(MODEL),
        "sweep": {
            "prompt": [*told, *HOSTILE, FAILING],
            "guidance_scale": list(GUIDANCE_SCALES),
            "seed": f"0-{num_seeds - 1}",
        },
        "defaults": {"num_inference_steps": 4},
        "recipe": "tests.faults:raises",
        "scores": ["sharpness", "motion", "flicker"],
        "fleet": {"workers": 2, "gpus_per_worker": 0},
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(job, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return file
