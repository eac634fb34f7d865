"""Prompts of which a model does not read the end: plan and records say so."""

from __future__ import annotations

from pathlib import Path

from framefleet import Clip, Renderer, Request, load_model
from framefleet.plugins.demo.prepare import MODEL
from tests.commands import command
from tests.jobs import write_job, write_table
from tests.tiny import SMALLEST, tiny

LONG = "a red ball rolls over the grass, " * 80  # 2,640 characters, which the demo's model counts as bytes


def planned(folder: Path, *prompts: str) -> str:
    table = write_table(folder / "t.parquet", [{"prompt": prompt} for prompt in prompts])
    model = {"path": str(MODEL), "device": "cpu"}
    size = {"num_frames": 9, "height": 64, "width": 64}
    values = {"table": str(table), "output": str(folder / "out"), "model": model, "defaults": size}
    ended = command("plan", str(write_job(folder / "job.yaml", values)), exits=0)
    return " ".join(ended.stdout.split())


def test_plan_says_how_many_prompts_are_cut_and_which_is_the_first(tmp_path: Path) -> None:
    said = planned(tmp_path, "a ball", LONG + "in rain", LONG + "in snow", "猫" * 20)
    assert "cut prompts: 2 rows with more tokens than the model reads" in said
    assert "row 1 has 2,648 of 64" in said
    assert "cut prompts" not in planned(tmp_path, "a ball")


def test_a_clip_says_that_its_prompt_was_cut() -> None:
    arguments = SMALLEST["wan"] | {"max_sequence_length": 32, "num_inference_steps": 1}
    prompts = ("a ball", LONG + "in rain", LONG + "in snow")
    requests = [Request(arguments=arguments | {"prompt": prompt}, seed=1) for prompt in prompts]
    found = Renderer(load_model(tiny("wan"), dtype="fp32")).render(requests)
    clips = {str(clip.request.arguments["prompt"]): clip for clip in found if isinstance(clip, Clip)}
    short, rain, snow = (clips[prompt] for prompt in prompts)
    assert (short.num_prompt_tokens, short.is_prompt_cut) == (7, False)
    assert (rain.num_prompt_tokens, rain.is_prompt_cut) == (2648, True)
    assert rain.frames_sha256 == snow.frames_sha256 != short.frames_sha256
