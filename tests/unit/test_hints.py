"""A hint leads somewhere: who does what it says is not refused again. And the first steps of a newcomer."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from PIL import Image

import framefleet
from framefleet import JobError, ModelError, Store, job_schema
from framefleet.jobs.job.file import load_job
from tests.commands import command
from tests.small_output import rendered
from tests.tiny import tiny

LEAST = "output: out\nmodel: MODEL\nsweep: {prompt: a}\n"
SEEDS, MEND_SEEDS = "use a sweep: [1, 2, 3]", "sweep: {prompt: a, seed: [1, 2, 3]}"


def refusal(text: str, folder: Path) -> str:
    """Return what is wrong with a job, with the hint; nothing where it is taken."""
    job = folder / "job.yaml"
    # what a line says counts for the job in place of what stood there
    own = [line for line in LEAST.splitlines() if line.partition(":")[0] not in text]
    job.write_text("\n".join([*own, text]).replace("MODEL", str(tiny("wan"))))
    planned = command("plan", job)
    assert planned.exit_code in (0, 2), planned.stderr
    return planned.stderr if planned.exit_code else ""


@pytest.mark.parametrize(
    ("mistake", "hint", "mended"),
    [
        ("sweep: {prompt: a, seed: '1,2,3'}", SEEDS, MEND_SEEDS),
        ("defaults: {seed: '1,2,3'}", SEEDS, MEND_SEEDS),
        ("defaults: {seed: '1,5'}", "use a sweep: [1, 5]", "sweep: {prompt: a, seed: [1, 5]}"),
        ("defaults: {guidance_scale: '7,5'}", "e.g. 7.5", "defaults: {guidance_scale: 7.5}"),
        ("defaults: {guidance_scale: 7,5}", "or a point, 7.5", "defaults: {guidance_scale: 7.5}"),
        ("sweep: {prompt: a, seed: 0..3}", "write 0-3", "sweep: {prompt: a, seed: 0-3}"),
        ("defaults:{guidance_scale: 5}", "`defaults: {...}`", "defaults: {guidance_scale: 5}"),
        ("defaults: {guidance_scale:5}", "`guidance_scale: ...`", "defaults: {guidance_scale: 5}"),
        ("defaults:\n  guidance_scale:5", "space after the colon", "defaults:\n  guidance_scale: 5"),
        ("media:{crf: 5, fps: 8}", "no space after a colon", "media: {crf: 5, fps: 8}"),
        ("media: {codec: libx264}", "did you mean `media.encoder`?", "media: {encoder: libx264}"),
        ("codec: libx264", "did you mean `media.encoder`?", "media: {encoder: libx264}"),
        ("media.crf: 5", "write `media: {crf: ...}`", "media: {crf: 5}"),
        ("defaults: {scheduler: 'unipc('}", "or only `unipc`", "defaults: {scheduler: unipc}"),
        ("batch_size: 2", "did you mean `batching.max_rows`?", "batching: {max_rows: 2}"),
        ("fleet: {num_workers: 1}", "did you mean `fleet.workers`?", "fleet: {workers: 1}"),
        ("steps: 4", "write `defaults: {num_inference_steps: 4}`", "defaults: {num_inference_steps: 4}"),
        ("negative: it's", '`defaults: {negative_prompt: "it\'s"}`', 'defaults: {negative_prompt: "it\'s"}'),
        ("seeds: 1,5-7", "write `sweep: {seed: [1,5-7]}`", "sweep: {prompt: a, seed: [1,5-7]}"),
        ("media: {where: accepted}", "known here: format, ", "media: {format: mkv}"),
        ("defaults: {cfg: 5}", "did you mean 'guidance_scale'?", "defaults: {guidance_scale: 5}"),
        ("sweep: {prompt: a {b}, b: [c]}", "put the text in quotes", "sweep: {prompt: 'a {b}', b: [c]}"),
        (
            "sweep: {prompt: 'a {bb}', bbb: [c]}",
            "did you mean {bbb}?",
            "sweep: {prompt: 'a {bbb}', bbb: [c]}",
        ),
    ],
)
def test_a_job_that_does_what_the_hint_says_is_taken(
    mistake: str, hint: str, mended: str, tmp_path: Path
) -> None:
    assert hint in " ".join(refusal(mistake, tmp_path).split())
    assert not refusal(mended, tmp_path)


def test_the_name_that_a_misspelt_key_is_told_is_a_key(tmp_path: Path) -> None:
    def keys() -> Iterator[tuple[str, ...]]:
        schema = job_schema()
        for section, field in schema["properties"].items():
            yield (section,)
            kind = next((one["$ref"] for one in (field, *field.get("anyOf", [])) if "$ref" in one), "")
            names = schema["$defs"].get(kind.rpartition("/")[2], {}).get("properties", {})
            for name in names if section != "sweep" else ():  # whose other keys are template words
                yield section, name

    job = {"output": str(tmp_path), "model": "m", "sweep": {"prompt": "a"}}
    known, told = {".".join(key) for key in keys()}, list[str]()
    for *section, name in keys():
        misspelt = {name[: len(name) // 2] + name[len(name) // 2 + 1 :]: "x"}
        with pytest.raises(JobError) as refused:
            load_job({**job, **({section[0]: misspelt} if section else misspelt)})
        told += re.findall(r"did you mean `([\w.]+)`", str(refused.value))
    assert {*told} <= known and len({*told}) > 0.9 * len(known), known - {*told}


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("--set media.crf = 5", "--set media.crf=5"),
        ("--set media.crf =5", "--set media.crf=5"),
        ("--set media.crf= 5", "--set media.crf=5"),
        ("--set media.crf: 5", "--set media.crf=5"),
        ("--set media.crf 5", "--set media.crf=5"),
        ("--set storage_options.secret = hunter2", "--set storage_options.secret=..."),
        ("--sweep seed = 1,2", "--sweep seed=1,2"),
        ("--prompt a red ball", "--prompt 'a red ball'"),
        ("--prompt ball star --seeds 1", "--prompt 'ball star'"),
    ],
)
def test_a_value_that_was_cut_at_its_spaces_is_shown_whole(typed: str, written: str, tmp_path: Path) -> None:
    of_job = ("plan", "--model", tiny("wan"), "--output", tmp_path / "out")
    rows = () if "--prompt" in typed else ("--prompt", "a b")
    refused = command(*of_job, *rows, *shlex.split(typed))
    assert refused.exit_code == 2 and written in " ".join(refused.stderr.replace("│", "").split())
    if "secret" not in typed:
        assert command(*of_job, *rows, *shlex.split(written)).exit_code == 0


def test_a_condition_and_a_folder_that_a_hint_names_are_taken(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "a"
    rendered(Store(str(folder)), 2, carried={"style": ["oil", "ink"]})
    (folder / "job.json").write_text("{}")
    for where in ("style = ink", "style IN (ink)", 'style = "ink"'):
        with pytest.raises(JobError, match="no column 'ink'") as refused:
            framefleet.read_records(str(folder), where=where)
        assert "single quotes: 'ink'" in refused.value.fix
    assert framefleet.read_records(str(folder), where="style = 'ink'").num_rows == 1
    assert "write --where 'style = ink'" in command("sheet", folder, *["--where", "style", "=", "ink"]).stderr
    for place in (tmp_path, tmp_path / "runs", folder / "clips"):
        assert f"did you mean '{folder}'?" in command("status", place, exits=2).stderr


def test_the_model_below_a_folder_or_a_url_is_named(tmp_path: Path) -> None:
    inner = tmp_path / "models--a--b" / "snapshots" / "c0ffee"
    inner.mkdir(parents=True)
    (inner / "model_index.json").write_text("{}")
    fsspec.filesystem("memory").pipe_file("/models/a/b/model_index.json", b"{}")
    places = {str(tmp_path / "models--a--b"): str(inner), "memory://models": "memory://models/a/b"}
    for place, meant in places.items():
        planned = command("plan", "--prompt", "a", "--model", place, "--output", tmp_path / "out")
        assert planned.exit_code == 2 and f"did you mean '{meant}'?" in planned.stderr, planned.stderr


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
        assert problem in " ".join(command("plan", *of_job, *words, exits=2).stderr.split())


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
