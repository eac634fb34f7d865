"""The command line as a shell sees it: text on the right stream, exit codes, and help without delay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest
from typer.main import get_command

import framefleet
from framefleet import Store, Summary
from framefleet.cluster.driver.progress import AuditFigures
from framefleet.jobs.cli import command_line
from tests.commands import command
from tests.jobs import write_job
from tests.small_output import rendered

ROOT = Path(__file__).parents[2]


def run(*arguments: str, cwd: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "framefleet", *arguments],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=120,
    )


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **more}


HEAVY = {"torch", "ray", "diffusers", "transformers", "pyarrow", "numpy", "fsspec", "av"}


def ended_with(*arguments: str) -> tuple[int, list[str]]:
    """The exit code, and which of these were imported: each takes longer than all that help needs."""
    script = (
        "import sys\n"
        "from framefleet.__main__ import main\n"
        f"sys.argv = ['framefleet', *{arguments!r}]\n"
        "try: main()\n"
        f"finally: print('imported:', *sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    return ended.returncode, ended.stderr.splitlines()[-1].split()[1:]


@pytest.mark.parametrize("arguments", [["--help"], ["render", "--help"], ["train", "--help"]])
def test_help_waits_for_no_heavy_import(arguments: list[str]) -> None:
    assert ended_with(*arguments) == (0, [])


@pytest.mark.parametrize("name", ["render", "train"])
def test_a_mistake_in_a_job_file_waits_for_no_heavy_import(name: str) -> None:
    assert ended_with(name, "nowhere.yaml") == (2, [])


@pytest.mark.parametrize("name", ["judge", "status"])
def test_a_command_waits_for_no_codec_before_it_has_an_output(name: str) -> None:
    code, imported = ended_with(name, "nowhere")
    assert code == 2 and not {"av", "torch", "ray"} & {*imported}


def test_help_names_every_command() -> None:
    printed = run("--help").stdout
    assert all(f" {one.name} " in printed for one in command_line().registered_commands if not one.hidden)


def test_a_command_is_the_function_of_its_name_in_a_file_of_that_name() -> None:
    app = command_line()
    groups = [app, *(group.typer_instance for group in app.registered_groups)]
    registered = [one for group in groups if group for one in group.registered_commands]
    assert registered
    for one in registered:
        assert one.callback is not None
        assert one.callback.__name__ == f"{one.name}_command"
        own_file = f".{one.name}"
        assert one.callback.__module__.endswith((".command", own_file))


def test_the_version_is_printed() -> None:
    assert run("--version").stdout == f"framefleet {framefleet.__version__}\n"


def test_the_schema_is_json_on_stdout() -> None:
    ended = run("schema")
    assert json.loads(ended.stdout)["title"]
    assert ended.stderr == ""


def test_the_schema_of_a_training_has_its_settings() -> None:
    printed = json.loads(run("schema", "train").stdout)
    assert "train" in printed["required"]
    assert "learning_rate" in printed["$defs"]["TrainSettings"]["properties"]


def test_a_bad_job_ends_with_2_and_two_plain_lines(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("table: t\noutput: o\nmodel: m\nfleet: {workrs: 2}\n")
    ended = run("render", "job.yaml", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [
        "error: job.yaml line 4: unknown key `fleet.workrs`",
        "hint: did you mean `fleet.workers`?",
    ]


def test_verbose_adds_the_traceback(tmp_path: Path) -> None:
    ended = run("render", "nowhere.yaml", "-v", cwd=tmp_path)
    assert ended.returncode == 2
    assert "Traceback" in ended.stderr
    assert "error: job file nowhere.yaml cannot be read" in ended.stderr


def test_colours_are_left_out_when_not_wanted(tmp_path: Path) -> None:
    wanted = run("render", "nowhere.yaml", cwd=tmp_path, FORCE_COLOR="1")
    assert "\x1b[" in wanted.stderr
    assert "\x1b[3" not in run("render", "nowhere.yaml", cwd=tmp_path, FORCE_COLOR="1", NO_COLOR="1").stderr


@pytest.mark.parametrize(
    "model",
    [
        "Wan-AI/Wan2.1",
        "https://huggingface.co/Wan-AI/Wan2.1",
        "https://hf.co/Wan-AI/Wan2.1/?library=diffusers",
        "https://huggingface.co/Wan-AI/Wan2.1/tree/main",
    ],
)
def test_offline_a_hub_model_or_its_page_that_is_not_in_the_cache_ends_with_3(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path / "c"))
    ended = command("plan", "--table", "t.csv", "--output", "o", "--model", model)
    assert ended.exit_code == 3
    assert (
        "error: hub model Wan-AI/Wan2.1 is not whole in the cache, and HF_HUB_OFFLINE is set" in ended.stderr
    )
    assert "hf download Wan-AI/Wan2.1" in ended.stderr
    assert "answer" not in ended.stderr  # the hub was not asked


def test_the_name_of_a_preset_is_refused_with_its_model(tmp_path: Path) -> None:
    for arguments in (["model", "info"], ["plan", "--prompt", "x", "--output", tmp_path, "--model"]):
        ended = command(*arguments, "wan2.2-t2v-a14b")
        assert ended.exit_code == 2
        assert "name of a preset; its model is Wan-AI/Wan2.2-T2V-A14B-Diffusers" in ended.stderr


@pytest.mark.parametrize("name", ["status", "failures", "logs", "stop", "verify", "trace", "prompts"])
def test_commands_that_read_no_job_take_no_other_key_than_storage_options(name: str, tmp_path: Path) -> None:
    ended = command(name, tmp_path, "--set", "nonsense=1")
    assert ended.exit_code == 2
    assert "--set nonsense: only storage_options can be set here" in ended.stderr, ended.output


def test_an_option_of_a_store_is_named_with_its_section(tmp_path: Path) -> None:
    ended = command("status", tmp_path, "--set", "endpoint_url=http://x")
    assert "an option of the store is written `storage_options.endpoint_url`" in ended.stderr
    job = {"model": "m", "sweep": {"prompt": "a"}, "output": str(tmp_path / "out")}
    ended = command("render", write_job(tmp_path / "job.yaml", job), "--set", "store.endpoint=http://x")
    assert (ended.exit_code, "did you mean `storage_options`?" in ended.stderr) == (2, True)


@pytest.mark.parametrize("name", ["status", "logs", "stop", "retry", "replay"])
def test_the_date_in_an_output_is_todays_for_every_command(name: str, tmp_path: Path) -> None:
    ended = command(name, f"{tmp_path}/night-{{date}}", *["ab12"] * (name == "replay"))
    assert ended.exit_code == 2 and f"{tmp_path}/night-20" in ended.stderr, ended.output


def test_the_date_in_options_and_destinations_is_todays_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However busy this machine is.
    for name, value in {
        "machine.LIMIT_S": 200.0,
        "services._SLOW_S": 1e9,
        "services._SLOW_MB_S": 0.0,
    }.items():
        monkeypatch.setattr(f"framefleet.plugins.doctor.{name}", value)
    (tmp_path / "clip.mp4").touch()
    night = f"{tmp_path}/night-{{date}}"
    traced = command("trace", tmp_path / "clip.mp4", "--output", night)
    assert f"{tmp_path}/night-20" in traced.stderr, traced.output
    checked = command("doctor", "--only", "store", "--store", night)
    assert f"{tmp_path}/night-20" in checked.stdout, checked.output
    rendered(Store(str(tmp_path / "out")))
    exported = command("export", tmp_path / "out", night, "--format", "webdataset")
    assert f"{tmp_path}/night-20" in exported.stdout, exported.output
    assert not (tmp_path / "night-{date}").exists()


@pytest.mark.parametrize("at", ["host", "80000", "-1"])
def test_a_port_for_metrics_is_a_port(at: str, tmp_path: Path) -> None:
    job = {"model": "m", "sweep": {"prompt": "a"}, "output": str(tmp_path / "out")}
    ended = command("render", write_job(tmp_path / "job.yaml", job), f"--metrics-port={at}")
    assert ended.exit_code == 2
    assert f"--metrics-port: '{at}' is not PORT or HOST:PORT" in ended.stderr


@pytest.mark.parametrize("name", ["render", "train", "retry"])
def test_what_takes_long_can_be_quiet_and_end_with_json(name: str) -> None:
    options = {
        option for parameter in get_command(command_line()).commands[name].params for option in parameter.opts
    }
    assert {"--json", "--quiet"} <= options


def test_a_summary_is_one_json_object() -> None:
    audits = AuditFigures(num_equal=3)
    summary = Summary(done=2, failed=1, elapsed_s=3.0, mean_batch=None, audits=audits, store=Store("/out"))
    values = json.loads(replace(summary, inner={"drafts": summary}).to_json())
    assert (values["done"], values["audits"]["num_equal"], values["drafts"]["failed"]) == (2, 3, 1)
    assert values["store"] == values["drafts"]["store"] == "/out"


def test_a_shell_completes_commands_and_options() -> None:
    asked = {
        "_FRAMEFLEET_COMPLETE": "complete_bash",
        "COMP_WORDS": "framefleet render --st",
        "COMP_CWORD": "2",
    }
    assert run(**asked).stdout.split() == ["--steps"]
    words = f"framefleet score {ROOT / 'README.md'} --sc"  # which is no output, and is not judged yet
    completed = run(**asked | {"COMP_WORDS": words, "COMP_CWORD": "3"})
    assert (completed.stdout.split(), completed.stderr) == (["--scores"], "")


def test_an_unknown_command_of_models_lists_those_there_are() -> None:
    assert "Use one of list, info" in run("model", "show").stderr


def test_an_unknown_command_ends_with_2() -> None:
    assert run("rendr").returncode == 2


def test_an_unknown_option_points_at_arguments_of_the_model() -> None:
    refused = command("plan", "job.yaml", "--guidance", "3")
    assert (refused.exit_code, "--set" in refused.stderr) == (2, True)
    assert "--set" not in command("status", "out", "--guidance", "3").stderr


def test_an_option_without_its_value_is_refused() -> None:
    refused = command("render", "--table")
    assert (refused.exit_code, "requires an argument" in refused.stderr) == (2, True)


def test_a_job_file_in_place_of_an_output_is_told_its_output(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("table: t.csv\nmodel: m\noutput: runs/7\n")
    refused = command("status", tmp_path / "job.yaml")
    assert (refused.exit_code, "is a job file, not an output" in refused.stderr) == (2, True)
    assert f"give its output: {tmp_path / 'runs/7'}" in refused.stderr


@pytest.mark.parametrize(
    ("words", "must_be"),
    [
        (["demo", "--seeds", "1,5"], "'1,5' must be a whole number (Number of clips of each prompt, e.g. 4"),
        (["demo", "--seeds", "2000"], "'2000' must be a number of at most 1000"),
        (["status", "out", "--every", "x"], "'x' must be a number (Seconds between"),
    ],
)
def test_a_number_that_is_none_is_answered_with_what_the_option_means(words: list[str], must_be: str) -> None:
    refused = command(*words)
    text = " ".join(refused.stderr.replace("│", " ").split())
    assert (refused.exit_code, must_be in text) == (2, True), text


@pytest.mark.parametrize("name", ["gallery", "sheet", "verify", "replay", "add", "retry"])
def test_a_file_in_place_of_an_output_is_refused_as_what_it_is(name: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("table: t.csv\nmodel: m\noutput: runs/7\n")
    (tmp_path / "t.csv").write_text("prompt\na red ball\n")
    more = {"replay": ["010e"], "add": [tmp_path]}.get(name, [])
    refused = command(name, tmp_path / "t.csv", *more)
    assert refused.exit_code == 2
    assert f"{tmp_path / 't.csv'} is a table, not an output" in refused.stderr
    assert ("framefleet add OUTPUT" in refused.stderr) == (name == "add")
    if name not in ("add", "retry"):  # which take a job file
        refused = command(name, tmp_path / "job.yaml", *more)
        assert f"give its output: {tmp_path / 'runs/7'}" in refused.stderr


def test_a_folder_of_a_model_that_is_mistyped_is_guessed(tmp_path: Path) -> None:
    (tmp_path / "wan-small").mkdir()
    (tmp_path / "t.csv").write_text("prompt\na red ball\n")
    places = ("--table", tmp_path / "t.csv", "--output", tmp_path / "out")
    refused = command("plan", *places, "--model", tmp_path / "wan-smal")
    assert (refused.exit_code, f"did you mean '{tmp_path / 'wan-small'}'?" in refused.stderr) == (2, True)


PLACES = ["--model /m", "--part vae=/v", "--lora a=/b", "--ip-adapter /i", "--second-model a=/m"]
PLACES += ["--recipe m:f", "--root /x", "--allow-pickle"]


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        *((f"verify out --fleet {one}", one) for one in PLACES),
        *((f"verify out --files {one}", one) for one in (*PLACES, "--seed 3")),
        ("verify out --row 1234 --seed 3", "--seed"),
        ("replay out 1234 --script --save x.mp4", "--save"),
        ("pack out --row 1234 --seed 3", "--seed"),
        ("export out to --format hf --private", "--private"),
    ],
)
def test_options_without_effect_are_refused(arguments: str, option: str) -> None:
    refused = command(*arguments.split())
    assert refused.exit_code == 2 and option.split()[0] in refused.stderr.splitlines()[0], refused.output
    assert "leave" in refused.stderr and "does not exist" not in refused.stderr
