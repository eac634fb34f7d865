"""A hint leads somewhere: who does what it says is not refused again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

import framefleet
from framefleet import JobError, Store, job_schema
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
        ended = command("status", place)
        assert ended.exit_code == 2 and f"did you mean '{folder}'?" in ended.stderr, ended.stderr


def test_the_model_below_a_folder_or_a_url_is_named(tmp_path: Path) -> None:
    inner = tmp_path / "models--a--b" / "snapshots" / "c0ffee"
    inner.mkdir(parents=True)
    (inner / "model_index.json").write_text("{}")
    fsspec.filesystem("memory").pipe_file("/models/a/b/model_index.json", b"{}")
    places = {str(tmp_path / "models--a--b"): str(inner), "memory://models": "memory://models/a/b"}
    for place, meant in places.items():
        planned = command("plan", "--prompt", "a", "--model", place, "--output", tmp_path / "out")
        assert planned.exit_code == 2 and f"did you mean '{meant}'?" in planned.stderr, planned.stderr
