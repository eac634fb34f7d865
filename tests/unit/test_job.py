"""The job file: what is taken, and what is refused with its place and fix."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

import pytest

import framefleet
from framefleet.jobs.job.file import job_kind_of, load_job
from framefleet.jobs.job.output import base_of
from framefleet.jobs.job.schema import Job, ModelSection
from framefleet.jobs.options import option_sets
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.outputs.media.media_settings import MediaFormat
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.plugins.deploy.submission import values_elsewhere
from tests.commands import command

HEAD = "auto, or HOST:PORT of the cluster's head, e.g. 10.0.0.5:6379"
URL = "a URL that begins with https:// or http://, or an environment variable as ${NAME}"
LEAST = "table: prompts.csv\noutput: out\nmodel: folder\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str) -> JobError:
    with pytest.raises(JobError) as caught:
        framefleet.plan(write(folder, text))
    return caught.value


def refused_by_set(folder: Path, text: str, *sets: str) -> str:
    ended = command("plan", write(folder, text), *(word for one in sets for word in ("--set", one)), exits=2)
    return " ".join(ended.stderr.split())


def test_three_keys_make_a_job(tmp_path: Path) -> None:
    assert load_job(write(tmp_path, "table: t\nmodel: m\noutput: 2024-13-45")).output.endswith("2024-13-45")
    job = load_job(write(tmp_path, LEAST))
    assert (job.table, job.output) == (str(tmp_path / "prompts.csv"), str(tmp_path / "out"))
    settings = job.model.path, job.batching.mode, job.fleet.workers, job.on_invalid
    assert settings == ("folder", "exact", "auto", "fail")
    places = {"table": str(tmp_path / "prompts.csv"), "output": str(tmp_path / "out")}
    assert job == load_job(None, **places, model="folder") == load_job({**places, "model": "folder"})
    sets = option_sets(workers=2, steps=4)
    job = load_job(None, sets, table="t", model="m", output="o")
    assert job.fleet.workers == 2 and job.overrides == {"num_inference_steps": 4}


def test_an_override_is_not_null_but_may_be_taken_back(tmp_path: Path) -> None:
    refused = refusal(tmp_path, f"{LEAST}overrides: {{guidance_scale: null}}\n")
    assert "overrides.guidance_scale is null" in refused.problem and "defaults: {guidance" in refused.fix
    path = write(tmp_path, f"{LEAST}overrides: {{guidance_scale: 3}}\n")
    assert load_job(path, ["overrides.guidance_scale=null"]).overrides == {}


def test_paths_of_a_file_start_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "jobs").mkdir()
    path = write(tmp_path / "jobs", LEAST)
    (tmp_path / "jobs" / "prompts.csv").touch()
    monkeypatch.chdir(tmp_path)
    job = load_job("jobs/job.yaml")
    assert (job.table, job.output, job.model.path) == ("jobs/prompts.csv", "jobs/out", "folder")
    assert load_job(path, table="t.csv").table == "t.csv"  # what is typed starts where it is typed
    (tmp_path / "out").mkdir()
    (tmp_path / "folder").mkdir()
    assert load_job("jobs/job.yaml").output == "jobs/out", "one job file has one output"
    assert caplog.messages == ["model: folder is in the current folder, not next to the job file"]
    caplog.clear()
    load_job("jobs/job.yaml", ["output=other", "model.path=m"])
    job_kind_of("jobs/job.yaml")
    assert not caplog.messages, "of what an option replaces nothing is said"
    for files in (
        "path: org/name/x.safetensors",
        "path: org/name/x.safetensors, parts: {vae: org/name/vae/y}",
    ):
        for models in (f"model: {{{files}}}\n", f"models: {{one: {{{files}}}}}\n"):  # of the hub
            job = load_job(write(tmp_path, f"table: t.csv\noutput: out\n{models}"))
            model = job.model or job.models["one"]
            assert model.path == "org/name/x.safetensors"
            assert not model.parts or model.parts["vae"].path == "org/name/vae/y"


def test_all_that_a_file_names_starts_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs").mkdir()
    for name in ("style.safetensors", "clip", "model", "adapter"):
        (tmp_path / "jobs" / name).mkdir()
    write(
        tmp_path / "jobs",
        "output: out\n"
        "model:\n  path: model\n  lock: a.lock\n"
        "  ip_adapter: {path: adapter, weights: w, image_encoder: e}\n"
        "loras: {style: style.safetensors, hub: {path: org/name, file: f}, none: ../b/y.pt, id: org/name}\n"
        "second_models: {big: {path: model}}\n"
        "inputs: {base: pictures, roots: [more, 's3://bucket']}\n"
        "scores: [{similarity: clip}]\n"
        "sweep:\n  prompt: {file: prompts.txt}\n  negative_prompt: '@my prompts.txt'\n"
        "  sample: {num: 2, over: {style: {file: styles.txt}, word: '@words.txt'}}\n"
        "marks: {watermark: [{name: videoseal, weights: w}]}\n",
    )
    monkeypatch.chdir(tmp_path)
    job = load_job("jobs/job.yaml")
    assert job.model and (job.model.path, job.model.lock) == ("jobs/model", "jobs/a.lock")
    assert job.model.ip_adapter and job.model.ip_adapter.path == "jobs/adapter"
    assert job.loras["style"].path == "jobs/style.safetensors"
    assert (job.loras["hub"].path, job.loras["hub"].file) == ("org/name", "f")
    assert (job.loras["none"].path, job.loras["id"].path) == ("jobs/../b/y.pt", "org/name")
    assert job.second_models["big"].path == "jobs/model"
    assert (job.inputs.base, job.inputs.roots) == ("jobs/pictures", ["jobs/more", "s3://bucket"])
    assert job.scores.root[0].similarity == "jobs/clip"  # type: ignore[union-attr]
    sweep = job.sweep.model_dump()
    assert sweep["prompt"] == {"file": "jobs/prompts.txt"}
    assert sweep["negative_prompt"] == {"file": "jobs/my prompts.txt"}
    assert sweep["sample"]["over"] == {
        "style": {"file": "jobs/styles.txt"},
        "word": {"file": "jobs/words.txt"},
    }
    assert job.marks.watermark[0].weights == "jobs/w"
    assert base_of(job) == "jobs/pictures"
    by_options = load_job("jobs/job.yaml", ["inputs.base=pictures"])
    assert by_options.inputs.base == "pictures", "what is typed starts where it is typed"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("table: $DATA/t.csv\noutput: out\nmodel: m\n", "table"),
        ("table: t.csv\noutput: ${SCRATCH}/run\nmodel: m\n", "output"),
        ("table: t.csv\noutput: s3://$BUCKET/run\nmodel: m\n", "output"),
        ("table: t.csv\noutput: out\nmodel: m\nloras: {a: '%DATA%/a.safetensors'}\n", "loras.a"),
        ("table: t.csv\noutput: out\nmodel: m\ninputs: {roots: [$DATA]}\n", "inputs.roots.0"),
    ],
)
def test_environment_variables_in_paths_are_refused(text: str, place: str, tmp_path: Path) -> None:
    error = refusal(tmp_path, text)
    assert str(tmp_path) not in error.problem
    assert error.problem.startswith(f"{place} is ") and "variables are not replaced" in error.problem
    assert f'--set {place}="' in error.fix


def test_a_set_value_is_yaml_and_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, LEAST + "fleet: {workers: 4}\n")
    sets = [
        "fleet.workers=2",
        "model.dtype.vae=bf16",
        "defaults.guidance_scale=1e1",
        "columns.prompt=caption",
    ]
    job = load_job(path, sets)
    assert job.fleet.workers == 2
    assert job.model == ModelSection(path="folder", dtype={"vae": "bf16"})
    assert job.defaults == {"guidance_scale": 10.0}
    assert job.columns == {"prompt": "caption"}
    numbered = load_job(path, ["sweep.seed=[007, 010, 0x10]", "columns.prompt=007"])
    assert numbered.sweep and numbered.sweep.model_dump()["seed"] == ["007", "010", 16]
    assert numbered.columns == {"prompt": "007"}
    dtype = {"default": "bf16", "vae": "fp32"}
    assert load_job(path, ["model.dtype={default: bf16, vae: fp32}"]).model.dtype == dtype
    path = write(tmp_path, "table: t\noutput: o\nmodel: {path: old, dtype: fp16}\n")
    assert load_job(path, model="new").model == ModelSection(path="new", dtype="fp16")
    path = write(tmp_path, "table: t\noutput: o\nmodel: {path: old, lock: a.lock.json}\n")
    assert load_job(path, model="/new").model.lock == str(tmp_path / "a.lock.json"), "next to the file"


def test_a_set_value_below_a_short_form_keeps_it(tmp_path: Path) -> None:
    model = "{path: m, placement: ulysses, parts: {vae: v.safetensors}}"
    path = write(tmp_path, f"table: t\noutput: o\nmodel: {model}\naudit: {{against: {{model: big}}}}\n")
    sets = [f"model.parts.vae.sha256={'a' * 64}", "audit.against.model.dtype=fp32"]
    job = load_job(path, ["model.placement.devices=2", *sets])
    assert job.model and job.model.placement and job.audit.against
    assert (job.model.placement.type, job.model.placement.devices) == ("ulysses", 2)
    assert job.model.parts["vae"].path.endswith("v.safetensors")
    assert (job.audit.against.model.path, job.audit.against.model.dtype) == ("big", "fp32")


def test_a_job_file_may_be_a_pipe_of_a_shell() -> None:
    read, write_to = os.pipe()
    os.write(write_to, LEAST.encode())
    os.close(write_to)
    with os.fdopen(read):
        place = f"/dev/fd/{read}"
        assert job_kind_of(place) is None
        assert load_job(place).model.path == "folder"


def test_a_key_without_a_value_means_its_default(tmp_path: Path) -> None:
    job = load_job(write(tmp_path, LEAST + "fleet:\nmedia: {fps: null}\ndefaults: {negative_prompt: null}\n"))
    assert job.fleet.workers == "auto"
    assert job.media.fps is None
    assert job.defaults == {"negative_prompt": None}


@pytest.mark.parametrize(
    ("text", "problem", "fix"),
    [
        ("threads: 2", "unknown key `threads`", "did you mean `model.threads`?"),
        ("fps: 8", "", "did you mean `media.fps`?"),
        ("dtype: bf16", "", "did you mean `model.dtype`?"),
        ("captions: {wher: accepted}", "did you mean `captions.where`?", ""),
        ("captions: [{model: m, url: u}, {wher: accepted}]", "did you mean `captions.where`?", ""),
        ("judge: [{naem: q}]", "did you mean `judge.name`?", ""),
        ("seeds: '0-63'", "", 'to render every row with each, write `sweep: {seed: "0-63"}`'),
        ("sead: 3", "", "write `defaults: {seed: 3}`"),
        ("zeta: 3", "", "belongs in `defaults: {zeta: ...}`"),
        ("output: b", "line 4: 'output' is given already on line 2", ""),
        ("columns: &c {prompt: *c}", "line 4: a YAML alias refers to itself", ""),
        ("table: [a", "not YAML", ""),
        ("- a", "not YAML", ""),
        *(
            (f"tag t.csv\n{rest}", "line 4: not YAML: could not find expected ':'", "")
            for rest in ("", "a: m")
        ),
    ],
)
def test_a_key_in_the_wrong_place_is_refused_with_its_line_and_the_right_one(
    text: str, problem: str, fix: str, tmp_path: Path
) -> None:
    error = refusal(tmp_path, f"{LEAST}{text}\n")
    assert problem in error.problem and fix in error.fix


@pytest.mark.parametrize(
    ("option", "problem", "fix"),
    [
        ("model.thread=2", "--set model.thread: unknown key `model.thread`", ""),
        ("on_end={when: fail}", "--set on_end: `on_end.when` is 'fail'", ""),
        ("on_end={email: x}", "--set on_end: unknown key `on_end.email`", ""),
        ("fleet.workers={min: 8}", "--set fleet.workers: the job has no `fleet.workers.max`", ""),
        ("budget={per: week}", "--set budget: `budget.per` is 'week'", ""),
        ("audit.at_most=2", "--set audit.at_most: `audit.at_most` is 2", ""),
        ("budget.money=5", "job.yaml line 4 and --set budget.money: `budget` is ", ""),
        ("model.dtype=half", "`model.dtype` is ", "it must be auto, fp32, fp16 or bf16 or a mapping (e.g. {"),
        ("model.dtype={vae: half}", "`model.dtype.vae` is ", "it must be fp32, fp16 or bf16"),
        ("model.dtype={vae: 16}", "`model.dtype.vae` is ", "it must be fp32, fp16 or bf16"),
        *((text, "not key=value", "") for text in ("workers", "=2", "a..b=2", "a.=2")),
        *((text, "", "") for text in ("a" + ".a" * 5000 + "=1", "loras..x=1", "x=" + "[" * 5000)),
        *((text, "", "") for text in ("fleet={1: 2}", "loras=2024-13-45")),
        ("output=out-\udcff", "--set output has bytes that are not UTF-8", ""),
    ],
)
def test_a_mistake_in_set_names_the_option(option: str, problem: str, fix: str, tmp_path: Path) -> None:
    error = refused_by_set(tmp_path, f"{LEAST}budget: {{per: run, hours: 1}}\n", option)
    assert problem in error and fix in error and "hint: " in error


@pytest.mark.parametrize(
    ("line", "problem", "fix"),
    [
        ("fleet: {workers: two}", "`fleet.workers` is 'two'", "a whole number or a mapping (e.g. {min: 1, "),
        (
            "fleet: {workers: 0}",
            "`fleet.workers` is 0",
            "a number of at least 1 or a mapping (e.g. {min: 1, ",
        ),
        ("batching: {max_rows: 4.0}", "`batching.max_rows` is 4.0", "a whole number"),
        ("batching: {mode: quick}", "`batching.mode` is 'quick'", "exact or fast"),
        ("media: {format: bmp}", "`media.format` is 'bmp'", "mp4, "),
        ("media: {crf: -1}", "`media.crf` is -1", "a number of at least 0"),
        ("on_invalid: no", "`on_invalid` is false", "fail or skip"),
        ("fleet: 3", "`fleet` is 3", "a mapping (key: value)"),
        *(
            (f"fleet: {{address: '{place}'}}", f"`fleet.address` is '{place}'", HEAD)
            for place in ("10.0.0.5", "ray://h:10001", "http://h:8265")
        ),
        ("fleet: {workers: {min: 64, max: 8}}", "`fleet.workers.max` is 8", "at least `min`, which is 64"),
        ("fleet: {workers: {target_s: 8h}}", "`fleet.workers.target_s` is '8h'", "a number of seconds"),
        ("budget: {stop_at: 7:00}", "`budget.stop_at` is '7:00'", 'a time such as "07:00"'),
        (
            "budget: {per: run}",
            "`budget` is {'per': 'run'}",
            "given with a limit: hours, money, bytes or stop",
        ),
        ("inputs: {roots: x}", "`inputs.roots` is 'x'", "a list ([...])"),
        ("on_end: {command: ./n --secret}", "`on_end.command` is not usable", "a list ([...])"),
        ("on_end: {webhook: hooks.x/secret}", "`on_end.webhook` is not usable", URL),
        ("heartbeat: {end: hc-ping.com/secret}", "`heartbeat.end` is not usable", URL),
        ("prompts: {rewrite: {url: http://x/v1/chat/completions/}}", "", "given without its end /chat/comp"),
        ("heartbeat: https://x.y/secret", "`heartbeat` is not usable", "a mapping (key: value)"),
        (
            "defaults: {prompt: {a: b}}",
            "`defaults.prompt` is {'a': 'b'}",
            "text, a number, true or false, or",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_line_value_and_fix(
    tmp_path: Path, line: str, problem: str, fix: str
) -> None:
    error = str(refusal(tmp_path, LEAST + line))
    assert f"job.yaml line 4: {problem}" in error and f"it must be {fix}" in error
    assert "secret" not in error


@pytest.mark.parametrize(
    ("option", "problem", "fix"),
    [
        ("output=S3://b/x", "output is S3://b/x", "write `s3://`"),
        ("output=s3:/b/x", "output is s3:/b/x", "write `s3://`"),
        ("table=s3:/b/x", "table is s3:/b/x", "write `s3://`"),
        ("output=out-{run}", "nothing replaces {run}", "{date} is the only placeholder"),
        ("output='s3://b/{date}/{date:%H}'", "nothing replaces {date:%H}", "{date} is the only placeholder"),
    ],
)
def test_a_path_that_means_something_else_than_it_says_is_refused(
    tmp_path: Path, option: str, problem: str, fix: str
) -> None:
    error = refused_by_set(tmp_path, LEAST, option)
    assert problem in error and f"hint: {fix}" in error
    name, _, place = option.partition("=")
    text = "".join(line for line in LEAST.splitlines(keepends=True) if not line.startswith(name))
    in_file = refusal(tmp_path, f"{text}{name}: {place}\n")
    assert problem in in_file.problem and in_file.fix.startswith(fix)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    error = refusal(tmp_path, "table: t\nmodel: m\nbaching: {mode: exact}\nmedia: {crf: x}\n")
    assert "the job has no `output`" in error.problem
    assert "line 3: unknown key `baching` (did you mean `batching`?)" in error.problem
    assert "line 4: `media.crf` is 'x'" in error.problem
    assert "not a mapping" in refusal(tmp_path, "").problem
    with pytest.raises(
        JobError, match=r"no `table`, and no `sweep`\n.*write `table: \.\.\.`, or pass `table=`"
    ):
        framefleet.plan({"output": "o", "model": "m"})


@pytest.mark.parametrize("value", [b"a", [{"b": {1}}], object()])
def test_an_unknown_key_of_python_may_have_any_value(value: Any) -> None:
    for key, fix in (("prompt", "prompt: ..."), ("stepz", "schema"), ("seed", "seed: ...")):
        with pytest.raises(JobError, match=f"unknown key `{key}`") as caught:
            load_job({"output": "o", "model": "m", "table": "t", key: value})
        assert fix in caught.value.fix


def test_secrets_are_neither_shown_nor_repeated_in_errors(tmp_path: Path) -> None:
    job = load_job(write(tmp_path, LEAST + "storage_options: {key: a, secret: hidden-value}\n"))
    assert "hidden-value" not in repr(job)
    assert "hidden-value" not in refused_by_set(tmp_path, LEAST, "storage_optons.secret=hidden-value")
    assert "hidden-value" not in str(refusal(tmp_path, LEAST + "storage_options: hidden-value\n"))


# Each of them once ended in a traceback, or never.
HOSTILE = {
    "revision: 4e2f1a": "unknown key `revision`",
    "? null": "the key 'null' is not text",
    "[a]: b": "the key a list or a mapping is not text",
    "columns: {on: x}": "the key 'on' is not text",
    "defaults: {a: .inf}": "`defaults.a` is inf",
    "fleet: {ready_timeout_s: .inf}": "it must be a finite number",
    "fleet: {workers: !!int x}": "'x' is not a valid int",
    "keep_embeddings: !!bool x": "'x' is not a valid bool",
    f"fleet: {{workers: {'9' * 5000}}}": "is not a valid int",
    f"fleet: {{workers: 0x{'f' * 5000}}}": "is too large a number",
    "output: !!python/object/apply:os.system [ls]": "could not determine a constructor",
    r'output: "\0"': "it contains",
    r'output: "\ud800"': "it contains",
    "output: " + "[" * 60_000: "more than 32 levels",
    "defaults:\n  " + "- " * 100_000: "more than 32 levels",
    "a: &a {<<: *a}": "a YAML alias refers to itself",
    "a: {<<: 5}": "expected a mapping",
    "#" * 300_000: "is longer than 262,144 characters",
}


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:40])
def test_a_hostile_job_file_is_refused_in_our_words(text: str, tmp_path: Path) -> None:
    kept = "".join(line for line in LEAST.splitlines(True) if line[:6] != text[:6])
    error = refusal(tmp_path, kept + text)
    assert HOSTILE[text] in error.problem + error.fix
    assert len(error.problem) < 1000


@pytest.mark.parametrize(
    "bomb", ["[*{0}, *{0}, *{0}, *{0}, *{0}, *{0}]", "{{<<: [*{0}, *{0}, *{0}], k{1}: 1}}"]
)
def test_aliases_that_multiply_are_refused_before_they_do(bomb: str, tmp_path: Path) -> None:
    lines = ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {bomb.format(f'a{i - 1}', i)}" for i in range(1, 20))]
    assert len("\n".join(lines)) < 1500
    assert "aliases written out" in refusal(tmp_path, LEAST + "\n".join(lines)).problem


def test_the_schema_holds_every_key_and_refuses_others() -> None:
    schema = framefleet.job_schema()
    assert set(schema["properties"]) == set(Job.model_fields)
    assert schema["required"] == ["output"]  # and a table, or a sweep
    assert schema["oneOf"] == [{"required": [name]} for name in ("model", "models", "engine")]
    assert schema["additionalProperties"] is False
    assert {"type": "string"} in schema["properties"]["model"]["anyOf"]
    assert all(name in schema["properties"]["recipe"]["description"] for name in BUILT_IN)
    media = schema["$defs"]["MediaSection"]["properties"]
    assert all(name in media["format"]["description"] for name in get_args(MediaFormat))


def test_a_job_file_that_is_a_pipe_or_has_no_end_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    with open(tmp_path / "sparse.yaml", "wb") as file:
        file.truncate(40 << 30)
    for name, problem in (
        ("pipe", "it is a pipe"),
        ("zero", "is longer than"),
        ("sparse", "is longer than"),
        ("nowhere", r"nowhere\.yaml cannot be read: No such file"),
    ):
        with pytest.raises(JobError, match=problem):
            framefleet.plan(tmp_path / f"{name}.yaml")


@pytest.mark.parametrize(
    ("base", "expected"),
    [(None, "{here}"), ("in", "{here}/in"), ("s3://bucket/in", "s3://bucket/in"), ("~/in", "{home}/in")],
)
def test_inputs_of_a_job_without_a_table_start_at_one_place_everywhere(
    base: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inputs = {} if base is None else {"inputs": {"base": base}}
    job = load_job({"output": "o", "model": "m", "sweep": {"seed": [1]}, **inputs})
    place = expected.format(here=os.getcwd(), home=os.path.expanduser("~"))
    assert values_elsewhere(job)["inputs"]["base"] == place
    of_file = load_job(write(tmp_path, "output: out\nmodel: m\nsweep: {seed: 0-3}\n"))
    assert base_of(of_file) == str(tmp_path)
