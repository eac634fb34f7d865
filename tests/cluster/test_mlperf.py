"""examples/mlperf_t2v.yaml with a tiny model of the same class: the frames are those of plain calls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

import framefleet
from framefleet import Store
from framefleet.jobs.job.file import load_job
from tests.jobs import ROOT, records_of
from tests.tiny import tiny

JOB = ROOT / "examples/mlperf_t2v.yaml"
PROMPTS = ["a person swims in the ocean", "一只猫", 'two dogs, a park and a "sign"']
SMALL = {"height": 16, "width": 16, "num_frames": 5, "max_sequence_length": 32}


def test_the_job_is_the_benchmarks() -> None:
    job = load_job(JOB)
    assert job.model.path == "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
    sizes = ("height", "width", "num_frames", "num_inference_steps", "guidance_scale", "guidance_scale_2")
    assert [job.defaults[name] for name in sizes] == [720, 1280, 81, 20, 4.0, 3.0]


def test_every_prompt_starts_from_the_same_latents(
    tmp_path: Path, ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(JOB.parent)  # where its recipe is
    prompts, latents_file = tmp_path / "prompts.txt", tmp_path / "latents.pt"
    prompts.write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    pipe = DiffusionPipeline.from_pretrained(tiny("wan_moe"), dtype=torch.float32)
    channels = pipe.transformer.config.in_channels
    side = 16 // pipe.vae_scale_factor_spatial
    latents = torch.randn(1, channels, 2, side, side, generator=torch.Generator().manual_seed(7))
    torch.save(latents, latents_file)
    sets = [f"sweep.prompt.file={prompts}", f"defaults.latents_file={latents_file}", "model.revision=null"]
    sets += [f"model.path={tiny('wan_moe')}", "model.dtype=fp32", f"output={tmp_path / 'out'}"]
    sets += [f"defaults.{name}={value}" for name, value in SMALL.items()]
    sets += [
        f"fleet.address={ray_cluster}",
        "fleet.workers=1",
        "fleet.gpus_per_worker=0",
        "media.format=png.zip",
    ]
    framefleet.render(load_job(JOB, sets))
    records = records_of(tmp_path / "out")
    assert {row["prompt"] for row in records} == set(PROMPTS)
    output = framefleet.Output(Store(tmp_path / "out"))
    for row in records:
        arguments = {
            name: value for name, value in load_job(JOB, sets).defaults.items() if name != "latents_file"
        }
        frames = pipe(
            prompt=row["prompt"],
            **arguments,
            latents=latents,
            generator=torch.Generator("cpu").manual_seed(42),
            output_type="np",
        ).frames[0]
        assert np.array_equal(output.frames(row), (frames * 255).round().astype(np.uint8))
