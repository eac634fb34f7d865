"""What new users got wrong first, and what `plan` says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import framefleet
from framefleet.pipeline.errors import ModelError
from tests.commands import command
from tests.tiny import tiny


@pytest.mark.parametrize(
    ("text", "problem", "fix"),
    [
        ("sweep: {prompt: [a], guidance_scale: '1,3,5'}", "has '1,3,5', but it has", "a sweep: [1, 3, 5]"),
        ("sweep: {prompt: a, seed: 0,1,2}", "the key '1' is not text", "write a list, [0, 1, 2]"),
        ("sweep:\n  prompt: a\n   seed: 1", "not YAML", "how far the line is indented"),
        ("sweep: {prompt: [a ball: it bounces]}", "`sweep.prompt.0` is", "a colon and a space in it needs"),
        ("prompt: a ball", "unknown key `prompt`", 'write `sweep: {prompt: "a ball"}`'),
        ("sweep: {seed: 0-3}", "the rows have no 'prompt'", "`sweep: {prompt: [...]}`"),
        ("sweep: {prompt: {style} ball}", "a text has {", "put the text in quotes"),
        (
            "sweep: {prompt: prompts.txt}",
            "line 3: sweep.prompt has 'prompts.txt'",
            "{prompt: {file: prompts.txt}",
        ),
        ("tabel: t.csv", "unknown key `tabel`", "did you mean `table`?"),
    ],
)
def test_a_job_is_refused_with_the_line_that_mends_it(
    text: str, problem: str, fix: str, tmp_path: Path
) -> None:
    job = tmp_path / "job.yaml"
    (tmp_path / "prompts.txt").write_text("a ball\n")
    job.write_text(f"model: {tiny('wan')}\noutput: out\n{text}\n")
    planned = command("plan", job)
    assert planned.exit_code == 2 and problem in planned.stderr and fix in planned.stderr, planned.stderr


@pytest.mark.parametrize("seeds", ["0..3", "1;5", "", "a", "0-3-5", "1,,2"])
def test_seeds_that_are_none_are_refused_by_their_option(seeds: str, tmp_path: Path) -> None:
    planned = command("plan", "--prompt", "a", "--seeds", seeds, "--model", tiny("wan"), "--output", tmp_path)
    assert planned.exit_code == 2 and f"--seeds {seeds}: not whole numbers" in planned.stderr, planned.stderr
    assert "write them as --seeds 0-63 or --seeds 1,5,9" in planned.stderr


def test_prompts_come_from_a_file_by_its_name(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a ball\na star\n")
    of_job = ("--model", tiny("wan"), "--output", tmp_path / "out")
    assert "2 prompts" in command("plan", *of_job, "--prompt", f"@{prompts}").stdout
    for words, problem in (
        (("--prompt", prompts), f"write --prompt @{prompts}"),
        (("--prompt", f"@{prompts}", "--prompt", "a"), f"@{prompts}, and no other values"),
        (("--sweep", f"style={prompts}"), f"@{prompts}, and no other values"),
    ):
        planned = command("plan", *of_job, *words)
        assert planned.exit_code == 2 and problem in " ".join(planned.stderr.split()), planned.stderr


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--table", "a.csv", "--images", "photos"), "--table or --images: a.csv and photos"),
        (("--images", "a", "--images", "b"), "--table or --images: a and b"),
        (("--prompt", "a", "--sweep", "prompt=@b.txt"), "--prompt and --sweep prompt=... both give values"),
        (("--seeds", "0-3", "--sweep", "seed=1,2"), "--seeds and --sweep seed=... both give values"),
        (("--sweep", "eta=0", "--sweep", "eta=1"), "--sweep eta=... and --sweep eta=... both give values"),
    ],
)
def test_two_places_of_rows_are_refused_with_both(options: tuple[str, ...], problem: str) -> None:
    for name in ("plan", "render"):
        refused = command(name, "--model", "m", "--output", "out", *options)
        assert refused.exit_code == 2 and problem in " ".join(refused.stderr.split()), refused.stderr


def test_a_model_that_is_no_folder_of_a_pipeline_is_refused_with_its_place(tmp_path: Path) -> None:
    folder = tiny("wan")
    for place, fix in (
        (folder / "model_index.json", f"use the folder it is in: '{folder}'"),
        (folder / "transformer", f"did you mean '{folder}'?"),
        (tmp_path / "none.gguf", "does not exist\nhint: correct its path"),
    ):
        planned = command("plan", "--prompt", "a", "--model", place, "--output", tmp_path / "out")
        assert planned.exit_code == 2 and fix in planned.stderr, planned.stderr


def test_what_the_model_or_torch_has_not_is_reported(tmp_path: Path) -> None:
    of_job = ("--model", tiny("wan"), "--output", tmp_path / "out", "--prompt")
    lora = command("plan", *of_job, "a <lora:style:0.8> ball")
    assert "a column `lora` names LoRAs" in lora.stderr
    device = command("plan", *of_job, "a", "--set", "model.device=gpu")
    assert device.exit_code == 2 and "torch has no device 'gpu'" in device.stderr
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos/a.png")
    pictures = command("plan", *of_job, "a", "--images", tmp_path / "photos")
    assert pictures.exit_code == 2 and "WanPipeline takes no image" in pictures.stderr, pictures.stderr


def test_values_of_torch_and_paths_are_taken_in_python(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    model = framefleet.load_model(tiny("wan"), device=cpu, dtype={"default": torch.float32, "vae": "fp32"})
    assert (model.settings.device, model.environment["dtype"]) == ("cpu", "fp32")
    section = {"path": Path(tiny("wan")), "device": cpu, "dtype": torch.bfloat16}
    plan = framefleet.plan(
        {"model": section, "output": tmp_path / "out"}, table=[{"prompt": "a", "num_frames": 10}]
    )
    assert "row 0: num_frames is 10" in repr(plan) and "sizes" not in repr(plan)
    with pytest.raises(ModelError, match=r"dtype is 'torch\.float64'"):
        framefleet.load_model(tiny("wan"), dtype=torch.float64)
    with pytest.raises(ModelError, match="no option 'torch_dtype'") as refused:
        framefleet.load_model(tiny("wan"), torch_dtype="bf16")  # type: ignore[call-arg]
    assert refused.value.fix == "did you mean 'dtype'?"
