"""The job file: what is taken, and what is refused with its place and fix."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest

from framefleet.cluster.fleet.settings import FleetSettings
from framefleet.jobs.job.file import job_kind_of, load_job, option_sets
from framefleet.jobs.job.model import _placed
from framefleet.jobs.job.output import base_of
from framefleet.jobs.job.schema import Job, ModelSection, job_schema
from framefleet.pipeline.errors import JobError
from framefleet.pipeline.model.device_placement import Placement
from framefleet.pipeline.outputs.media.media_settings import MediaFormat
from framefleet.pipeline.recipes.recipe import BUILT_IN
from framefleet.plugins.deploy.submission import values_elsewhere

FORMATS = get_args(MediaFormat)
HEAD = "auto, or HOST:PORT of the cluster's head, e.g. 10.0.0.5:6379"
URL = "a URL that begins with https:// or http://, or an environment variable as ${NAME}"
LEAST = "table: prompts.csv\noutput: out\nmodel: folder\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str, *sets: str) -> JobError:
    with pytest.raises(JobError) as caught:
        load_job(write(folder, text), sets)
    return caught.value


def test_three_keys_make_a_job(tmp_path: Path) -> None:
    job = load_job(write(tmp_path, LEAST))
    assert (job.table, job.output) == (str(tmp_path / "prompts.csv"), str(tmp_path / "out"))
    assert (job.model.path, job.batching.mode, job.fleet.workers, job.on_invalid) == (
        "folder",
        "exact",
        "auto",
        "fail",
    )


def test_an_output_may_have_the_date(tmp_path: Path) -> None:
    before = datetime.now(UTC).date().isoformat()
    output = load_job(write(tmp_path, LEAST.replace("out\n", '"out-{date}"\n', 1))).output
    after = datetime.now(UTC).date().isoformat()
    assert output in {str(tmp_path / f"out-{day}") for day in (before, after)}


def test_options_alone_make_the_same_job(tmp_path: Path) -> None:
    table, output = str(tmp_path / "prompts.csv"), str(tmp_path / "out")
    by_options = load_job(None, table=table, output=output, model="folder")
    assert by_options == load_job(write(tmp_path, LEAST))
    assert by_options == load_job({"table": table, "output": output, "model": "folder"})


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


def test_all_that_a_file_names_starts_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs").mkdir()
    for name in ("style.safetensors", "clip", "model", "adapter"):
        (tmp_path / "jobs" / name).mkdir()
    write(
        tmp_path / "jobs",
        "output: out\n"
        "model:\n  path: model\n  lock: a.lock\n"
        "  ip_adapter: {path: adapter, weights: w, image_encoder: e}\n"
        "loras: {style: style.safetensors, hub: {path: org/name, file: f}}\n"
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


def test_a_file_that_is_not_there_is_looked_for_next_to_the_job(tmp_path: Path) -> None:
    text = (
        "table: t.csv\noutput: out\nmodel: m\nloras: {a: x.safetensors, b: ../b/y.pt, c: org/name, d: ./z}\n"
    )
    loras = load_job(write(tmp_path, text)).loras
    paths = {name: lora.path for name, lora in loras.items()}
    assert paths == {
        "a": f"{tmp_path}/x.safetensors",
        "b": f"{tmp_path}/../b/y.pt",
        "c": "org/name",
        "d": f"{tmp_path}/z",
    }


def test_files_of_the_hub_keep_their_names(tmp_path: Path) -> None:
    files = "path: org/name/x.safetensors, base: org/base, parts: {vae: org/name/vae/y.gguf}"
    for text in (f"model: {{{files}}}\n", f"models: {{one: {{{files}}}}}\n"):
        job = load_job(write(tmp_path, f"table: t.csv\noutput: out\n{text}"))
        model = job.model or job.models["one"]
        assert model.path == "org/name/x.safetensors"
        assert model.parts["vae"].path == "org/name/vae/y.gguf"


def test_inputs_of_a_job_without_a_table_start_in_the_folder_of_its_file(tmp_path: Path) -> None:
    job = load_job(write(tmp_path, "output: out\nmodel: m\nsweep: {seed: 0-3}\n"))
    assert base_of(job) == str(tmp_path)


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


def test_short_options_are_settings() -> None:
    sets = option_sets(workers=2, steps=4)
    job = load_job(None, sets, table="t", model="m", output="o")
    assert job.fleet.workers == 2 and job.overrides == {"num_inference_steps": 4}


def test_a_set_value_is_yaml_and_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, LEAST + "fleet: {workers: 4}\n")
    job = load_job(
        path, ["fleet.workers=2", "model.dtype=bf16", "defaults.guidance_scale=1e1", "columns.prompt=caption"]
    )
    assert job.fleet.workers == 2
    assert job.model == ModelSection(path="folder", dtype="bf16")
    assert job.defaults == {"guidance_scale": 10.0}
    assert job.columns == {"prompt": "caption"}


def test_a_model_option_keeps_the_files_dtype(tmp_path: Path) -> None:
    path = write(tmp_path, "table: t\noutput: o\nmodel: {path: old, dtype: fp16}\n")
    assert load_job(path, model="new").model == ModelSection(path="new", dtype="fp16")


def test_a_key_without_a_value_means_its_default(tmp_path: Path) -> None:
    job = load_job(write(tmp_path, LEAST + "fleet:\nmedia: {fps: null}\ndefaults: {negative_prompt: null}\n"))
    assert job.fleet.workers == "auto"
    assert job.media.fps is None
    assert job.defaults == {"negative_prompt": None}


def test_an_unknown_key_is_refused_with_its_line_and_the_nearest_one(tmp_path: Path) -> None:
    error = refusal(tmp_path, LEAST + "fleet:\n  workrs: 2\n")
    assert error.problem.endswith("job.yaml line 5: unknown key `fleet.workrs`")
    assert error.fix == "did you mean `fleet.workers`?"


def test_a_known_key_in_the_wrong_place_is_told_its_place(tmp_path: Path) -> None:
    assert refusal(tmp_path, LEAST + "threads: 2\n").fix == "did you mean `model.threads`?"


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("captions: {wher: accepted}", "captions.where"),
        ("captions: [{model: m, url: u}, {wher: accepted}]", "captions.where"),
        ("judge: [{naem: q}]", "judge.name"),
    ],
)
def test_an_unknown_key_in_a_list_means_one_of_the_same_list(tmp_path: Path, section: str, key: str) -> None:
    error = refusal(tmp_path, LEAST + section + "\n")
    assert f"did you mean `{key}`?" in f"{error.problem}\n{error.fix}"


def test_an_argument_of_rows_next_to_the_keys_is_told_where_it_belongs(tmp_path: Path) -> None:
    assert refusal(tmp_path, LEAST + "steps: 8\n").fix == (
        "to set it for every row, write `defaults: {num_inference_steps: 8}`"
    )
    for values in ("[1, 2]", "'0-63'"):
        fix = refusal(tmp_path, LEAST + f"seeds: {values}\n").fix
        assert fix == f"to render every row with each, write `sweep: {{seed: {values}}}`"
    assert refusal(tmp_path, LEAST + "fps: 8\n").fix == "did you mean `media.fps`?"
    assert refusal(tmp_path, LEAST + "dtype: bf16\n").fix == "did you mean `model.dtype`?"


def test_an_unknown_key_of_set_is_refused_as_such(tmp_path: Path) -> None:
    assert (
        refusal(tmp_path, LEAST, "model.thread=2").problem == "--set model.thread: unknown key `model.thread`"
    )


@pytest.mark.parametrize(
    ("line", "problem", "fix"),
    [
        (
            "fleet: {workers: two}",
            "`fleet.workers` is 'two'",
            "a whole number or a mapping (e.g. {min: 1, max: 64}) or auto",
        ),
        (
            "fleet: {workers: 0}",
            "`fleet.workers` is 0",
            "a number of at least 1 or a mapping (e.g. {min: 1, max: 64}) or auto",
        ),
        ("batching: {max_rows: 4.0}", "`batching.max_rows` is 4.0", "a whole number"),
        ("batching: {mode: quick}", "`batching.mode` is 'quick'", "exact or fast"),
        ("media: {format: bmp}", "`media.format` is 'bmp'", f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"),
        ("media: {crf: -1}", "`media.crf` is -1", "a number of at least 0"),
        ("on_invalid: no", "`on_invalid` is false", "fail or skip"),
        ("fleet: 3", "`fleet` is 3", "a mapping (key: value)"),
        ("fleet: {address: 10.0.0.5}", "`fleet.address` is '10.0.0.5'", HEAD),
        ("fleet: {address: 'ray://h:10001'}", "`fleet.address` is 'ray://h:10001'", HEAD),
        ("fleet: {address: 'http://h:8265'}", "`fleet.address` is 'http://h:8265'", HEAD),
        (
            "fleet: {workers: {min: 64, max: 8}}",
            "`fleet.workers.max` is 8",
            "at least `min`, which is 64",
        ),
        (
            "fleet: {workers: {max: 4, target_s: 8h}}",
            "`fleet.workers.target_s` is '8h'",
            "a number of seconds",
        ),
        ("budget: {stop_at: 7:00}", "`budget.stop_at` is '7:00'", 'a time such as "07:00"'),
        (
            "budget: {per: run}",
            "`budget` is {'per': 'run'}",
            "given with a limit: hours, money, bytes or stop_at",
        ),
        ("inputs: {roots: x}", "`inputs.roots` is 'x'", "a list ([...])"),
        ("on_end: {command: ./n --secret}", "`on_end.command` is not usable", "a list ([...])"),
        ("on_end: {webhook: hooks.x/secret}", "`on_end.webhook` is not usable", URL),
        ("heartbeat: {end: hc-ping.com/secret}", "`heartbeat.end` is not usable", URL),
        (
            "prompts: {rewrite: {url: http://x/v1/chat/completions/, model: m}}",
            "`prompts.rewrite.url` is 'http://x/v1/chat/completions/'",
            "given without its end /chat/completions, which framefleet adds",
        ),
        ("heartbeat: https://x.y/secret", "`heartbeat` is not usable", "a mapping (key: value)"),
        (
            "defaults: {prompt: {a: b}}",
            "`defaults.prompt` is {'a': 'b'}",
            "text, a number, true or false, or a list",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_line_value_and_fix(
    tmp_path: Path, line: str, problem: str, fix: str
) -> None:
    error = refusal(tmp_path, LEAST + line)
    assert error.problem.endswith(f"job.yaml line 4: {problem}")
    assert error.fix == f"it must be {fix}"


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("on_end={when: fail}", "--set on_end: `on_end.when` is 'fail'"),
        ("on_end={email: x}", "--set on_end: unknown key `on_end.email`"),
        ("fleet.workers={min: 8}", "--set fleet.workers: the job has no `fleet.workers.max`"),
        ("budget={per: week}", "--set budget: `budget.per` is 'week'"),
        ("audit.at_most=2", "--set audit.at_most: `audit.at_most` is 2"),
    ],
)
def test_a_mistake_in_a_mapping_of_set_names_the_option(tmp_path: Path, option: str, problem: str) -> None:
    text = f"{LEAST}budget: {{per: run, hours: 1}}\n"
    assert refusal(tmp_path, text, option).problem == problem
    with pytest.raises(JobError) as caught:
        load_job(write(tmp_path, text), ["budget.money=5"])
    assert caught.value.problem.startswith(
        f"{tmp_path / 'job.yaml'} line 4 and --set budget.money: `budget` is "
    )


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
    error = refusal(tmp_path, LEAST, option)
    assert problem in error.problem and error.fix.startswith(fix)
    name, _, place = option.partition("=")
    text = "".join(line for line in LEAST.splitlines(keepends=True) if not line.startswith(name))
    in_file = refusal(tmp_path, f"{text}{name}: {place}\n")
    assert problem in in_file.problem and in_file.fix == error.fix


def test_workers_of_several_gpus_use_them_by_components_unless_the_job_says_more(tmp_path: Path) -> None:
    section = ModelSection(path="m")
    assert _placed(section, FleetSettings()).placement is None
    assert _placed(section, FleetSettings(gpus_per_worker=0.5)).placement is None
    assert _placed(section, FleetSettings(gpus_per_worker=2)).placement == Placement(type="components")
    layers = ModelSection.model_validate({"path": "m", "placement": "layers"})
    assert _placed(layers, FleetSettings(gpus_per_worker=2)).placement == Placement(type="layers")


@pytest.mark.parametrize(
    ("text", "fix"),
    [("sead: 3\n", "write `defaults: {seed: 3}`"), ("zeta: 3\n", "belongs in `defaults: {zeta: ...}`")],
)
def test_an_argument_in_the_place_of_a_key_is_sent_to_defaults(tmp_path: Path, text: str, fix: str) -> None:
    assert fix in refusal(tmp_path, LEAST + text).fix


def test_a_job_of_python_names_no_options() -> None:
    with pytest.raises(JobError) as caught:
        load_job({"output": "o", "model": "m"})
    assert caught.value.fix == "write `table: ...`, or pass `table=`"


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    error = refusal(tmp_path, "table: t\nmodel: m\nbaching: {mode: exact}\nmedia: {crf: x}\n")
    assert "the job has no `output`" in error.problem
    assert "line 3: unknown key `baching` (did you mean `batching`?)" in error.problem
    assert "line 4: `media.crf` is 'x'" in error.problem


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, "table: a\noutput: o\ntable: b\n")
    assert error.problem.endswith("line 3: 'table' is given already on line 1")


@pytest.mark.parametrize(
    ("text", "said"), [("table: [a\n", "not YAML"), ("- a\n", "not a mapping"), ("", "not a mapping")]
)
def test_what_is_no_job_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text).problem


@pytest.mark.parametrize("rest", ["", "model: m\n", "\n\n"])
def test_a_missing_colon_is_on_its_own_line(tmp_path: Path, rest: str) -> None:
    assert (
        "line 2: not YAML: could not find expected ':'"
        in refusal(tmp_path, f"output: o\ntable t.csv\n{rest}").problem
    )


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(JobError, match=r"nowhere\.yaml cannot be read: No such file"):
        load_job("nowhere.yaml")


@pytest.mark.parametrize("text", ["workers", "=2", "a..b=2", "a.=2"])
def test_a_set_without_key_or_value_is_refused(tmp_path: Path, text: str) -> None:
    assert "not key=value" in refusal(tmp_path, LEAST, text).problem


def test_secrets_are_neither_shown_nor_repeated_in_errors(tmp_path: Path) -> None:
    job = load_job(write(tmp_path, LEAST + "storage_options: {key: a, secret: hidden-value}\n"))
    assert "hidden-value" not in repr(job)
    assert "hidden-value" not in str(refusal(tmp_path, LEAST, "storage_optons.secret=hidden-value"))
    assert "hidden-value" not in str(refusal(tmp_path, LEAST + "storage_options: hidden-value\n"))


def test_an_alias_inside_what_it_names_is_refused(tmp_path: Path) -> None:
    text = LEAST + "columns: &c {prompt: *c}\n"
    assert refusal(tmp_path, text).problem.endswith("line 4: a YAML alias refers to itself")


# Each of them once ended in a traceback, or never.
HOSTILE = {
    "output: 2024-13-45": None,  # text, as it stands
    "revision: 4e2f1a": "unknown key `revision`",
    "? null": "the key 'null' is not text",
    "1: x": "the key '1' is not text",
    "[a]: b": "the key a list or a mapping is not text",
    "columns: {on: x}": "the key 'on' is not text",
    "defaults: {a: .inf}": "`defaults.a` is inf",
    "fleet: {ready_timeout_s: .inf}": "it must be a finite number",
    "fleet: {workers: .nan}": "`fleet.workers` is nan",
    "fleet: {workers: !!int x}": "'x' is not a valid int",
    "keep_embeddings: !!bool x": "'x' is not a valid bool",
    f"fleet: {{workers: {'9' * 5000}}}": "is not a valid int",
    f"fleet: {{workers: 0x{'f' * 5000}}}": "is too large a number",
    "columns: !!set {a}": "could not determine a constructor",
    "output: !!binary aGk=": "could not determine a constructor",
    "output: !!python/object/apply:os.system [ls]": "could not determine a constructor",
    r'output: "\0"': "it contains",
    r'output: "\ud800"': "it contains",
    r'output: "\UFFFFFFFF"': "not YAML",
    "output: " + "[" * 60_000: "more than 32 levels",
    "defaults:\n  " + "- " * 100_000: "more than 32 levels",
    "a: &a {<<: *a}": "a YAML alias refers to itself",
    "a: {<<: 5}": "expected a mapping",
    "#" * 300_000: "is longer than 262,144 characters",
}


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:40])
def test_a_hostile_job_file_is_refused_in_our_words(text: str, tmp_path: Path) -> None:
    kept = "".join(line for line in LEAST.splitlines(True) if line[:6] != text[:6])
    said = HOSTILE[text]
    if said is None:
        assert load_job(write(tmp_path, kept + text)).output == str(tmp_path / "2024-13-45")
        return
    error = refusal(tmp_path, kept + text)
    assert said in error.problem + error.fix
    assert len(error.problem) < 1000


@pytest.mark.parametrize(
    "bomb", ["[*{0}, *{0}, *{0}, *{0}, *{0}, *{0}]", "{{<<: [*{0}, *{0}, *{0}], k{1}: 1}}"]
)
def test_aliases_that_multiply_are_refused_before_they_do(bomb: str, tmp_path: Path) -> None:
    lines = ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {bomb.format(f'a{i - 1}', i)}" for i in range(1, 20))]
    assert len("\n".join(lines)) < 1500
    assert "aliases written out" in refusal(tmp_path, LEAST + "\n".join(lines)).problem


def test_a_job_file_that_has_no_end_is_refused() -> None:
    with pytest.raises(JobError, match="longer than"):
        load_job("/dev/zero")


@pytest.mark.parametrize(
    "text", ["a" + ".a" * 5000 + "=1", "loras..x=1", "x=" + "[" * 5000, "fleet={1: 2}", "loras=2024-13-45"]
)
def test_a_hostile_set_is_refused_in_our_words(text: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, LEAST, text).fix


def test_the_schema_holds_every_key_and_refuses_others() -> None:
    schema = job_schema()
    assert set(schema["properties"]) == set(Job.model_fields)
    assert schema["required"] == ["output"]  # and a table, or a sweep
    assert schema["oneOf"] == [{"required": ["model"]}, {"required": ["models"]}]
    assert schema["additionalProperties"] is False
    assert {"type": "string"} in schema["properties"]["model"]["anyOf"]
    assert all(name in schema["properties"]["recipe"]["description"] for name in BUILT_IN)
    media = schema["$defs"]["MediaSection"]["properties"]
    assert all(name in media["format"]["description"] for name in FORMATS)


def test_a_dtype_may_be_of_each_component(tmp_path: Path) -> None:
    path = write(tmp_path, LEAST)
    assert load_job(path, ["model.dtype={default: bf16, vae: fp32}"]).model.dtype == {
        "default": "bf16",
        "vae": "fp32",
    }
    assert load_job(path, ["model.dtype.vae=fp32"]).model.dtype == {"vae": "fp32"}


@pytest.mark.parametrize(
    ("dtype", "fix"),
    [
        ("half", "it must be auto, fp32, fp16 or bf16 or a mapping (e.g. {default: bf16, vae: fp32})"),
        ("{vae: half}", "it must be fp32, fp16 or bf16"),
        ("{vae: 16}", "it must be fp32, fp16 or bf16"),
    ],
)
def test_a_dtype_that_does_not_exist_is_refused_with_those_that_do(
    tmp_path: Path, dtype: str, fix: str
) -> None:
    error = refusal(tmp_path, LEAST, f"model.dtype={dtype}")
    assert f"`model.dtype{'.vae' * ('vae' in dtype)}` is " in error.problem
    assert error.fix == fix


def test_bytes_that_are_no_text_are_refused_where_they_were_typed() -> None:
    with pytest.raises(JobError, match="--output holds bytes that are not UTF-8"):
        load_job(None, table="t.csv", model="m", output="out-\udcff")
    with pytest.raises(JobError, match="--set holds bytes that are not UTF-8"):
        load_job(None, ["output=out-\udcff"])


def test_a_job_file_that_is_a_pipe_or_has_no_end_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    with open(tmp_path / "sparse.yaml", "wb") as file:
        file.truncate(40 << 30)
    for name, said in (("pipe", "it is a pipe"), ("zero", "is longer than"), ("sparse", "is longer than")):
        with pytest.raises(JobError, match=said):
            load_job(tmp_path / f"{name}.yaml")


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
