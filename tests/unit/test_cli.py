"""The command line as a shell sees it: text on the right stream, exit codes, and help without delay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import framefleet
from framefleet import JobError, Store
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


@pytest.mark.parametrize(
    ("words", "code", "unwanted"),
    [
        *((words, 0, HEAVY) for words in ("--help", "render --help")),
        *((f"{name} nowhere.yaml", 2, HEAVY) for name in ("render", "train")),  # a mistake in a job file
        *((f"{name} nowhere", 2, {"av", "torch", "ray"}) for name in ("judge", "status")),
    ],
)
def test_help_and_mistakes_wait_for_no_heavy_import(words: str, code: int, unwanted: set[str]) -> None:
    exit_code, imported = ended_with(*words.split())
    assert exit_code == code and not unwanted & {*imported}


def test_help_names_every_command() -> None:
    printed = command("--help").stdout
    assert all(f" {one.name} " in printed for one in command_line().registered_commands if not one.hidden)


def test_the_version_and_the_schema_are_printed_on_stdout() -> None:
    assert run("--version").stdout == f"framefleet {framefleet.__version__}\n"
    ended = run("schema")
    assert json.loads(ended.stdout)["title"] and ended.stderr == ""
    printed = json.loads(command("schema", "train").stdout)
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


def test_verbose_adds_the_traceback_and_colours_are_left_out_when_not_wanted(tmp_path: Path) -> None:
    wanted = run("render", "nowhere.yaml", "-v", cwd=tmp_path, FORCE_COLOR="1")
    assert wanted.returncode == 2
    assert "Traceback" in wanted.stderr
    assert "job file nowhere.yaml cannot be read" in wanted.stderr
    assert "\x1b[" in wanted.stderr
    assert "\x1b[3" not in run("render", "nowhere.yaml", cwd=tmp_path, FORCE_COLOR="1", NO_COLOR="1").stderr


@pytest.mark.parametrize("page", ["", "https://hf.co/", "https://huggingface.co/{}/tree/main"])
def test_offline_a_hub_model_or_its_page_that_is_not_in_the_cache_ends_with_3(
    page: str, tmp_path: Path
) -> None:
    model = page.format("Wan-AI/Wan2.1") if "{}" in page else f"{page}Wan-AI/Wan2.1"
    places = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": f"{tmp_path}/hub", "FRAMEFLEET_CACHE": f"{tmp_path}/c"}
    ended = run("plan", "--table", "t.csv", "--output", "o", "--model", model, **places)
    assert ended.returncode == 3
    assert "error: hub model Wan-AI/Wan2.1 is not complete in the cache, and HF_HUB_OFFLINE" in ended.stderr
    assert "hf download Wan-AI/Wan2.1" in ended.stderr
    assert "answer" not in ended.stderr  # the hub was not asked


def test_the_name_of_a_preset_is_refused_with_its_model(tmp_path: Path) -> None:
    for arguments in (["model", "info"], ["plan", "--prompt", "x", "--output", tmp_path, "--model"]):
        ended = command(*arguments, "wan2.2-t2v-a14b", exits=2)
        assert "name of a preset; its model is Wan-AI/Wan2.2-T2V-A14B-Diffusers" in ended.stderr


@pytest.mark.parametrize("name", ["status", "failures", "logs", "stop", "verify", "trace", "repair"])
def test_commands_that_read_no_job_take_no_other_key_than_storage_options(name: str, tmp_path: Path) -> None:
    ended = command(name, tmp_path, "--set", "nonsense=1", exits=2)
    assert "--set nonsense: only storage_options can be set here" in ended.stderr, ended.output


def test_an_option_of_a_store_is_named_with_its_section(tmp_path: Path) -> None:
    ended = command("status", tmp_path, "--set", "endpoint_url=http://x")
    assert "an option of the store is written `storage_options.endpoint_url`" in ended.stderr
    job = {"model": "m", "sweep": {"prompt": "a"}, "output": str(tmp_path / "out")}
    ended = command("render", write_job(tmp_path / "job.yaml", job), "--set", "store.endpoint=http://x")
    assert (ended.exit_code, "did you mean `storage_options`?" in ended.stderr) == (2, True)


@pytest.mark.parametrize("name", ["status", "logs", "stop", "repair", "replay"])
def test_the_date_in_an_output_is_todays_for_every_command(name: str, tmp_path: Path) -> None:
    ended = command(name, f"{tmp_path}/night-{{date}}", *["ab12"] * (name == "replay"))
    assert ended.exit_code == 2 and f"{tmp_path}/night-20" in ended.stderr, ended.output


def test_the_date_in_options_and_destinations_is_todays_too(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    night = f"{tmp_path}/night-{{date}}"
    assert f"{tmp_path}/night-20" in command("trace", tmp_path / "clip.mp4", "--output", night).stderr
    rendered(Store(str(tmp_path / "out")), 1)
    exported = command("export", tmp_path / "out", night, "--format", "webdataset")
    assert f"{tmp_path}/night-20" in exported.stdout, exported.output
    assert not (tmp_path / "night-{date}").exists()


@pytest.mark.parametrize("at", ["host", "here:x", "80000", "-1"])
def test_a_port_for_metrics_is_a_port(at: str, tmp_path: Path) -> None:
    job = {"model": "m", "sweep": {"prompt": "a"}, "output": str(tmp_path / "out")}
    ended = command("render", write_job(tmp_path / "job.yaml", job), f"--metrics-port={at}", exits=2)
    assert f"--metrics-port: '{at}' is not PORT or HOST:PORT" in ended.stderr


@pytest.mark.parametrize("name", ["render", "train", "retry"])
def test_what_takes_long_can_be_quiet_and_end_with_json(name: str) -> None:
    shown = command(name, "--help").stdout
    assert "--json" in shown and "--quiet" in shown


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("rendr", "No such command"),
        ("model show", "Use one of list, info"),
        ("render --table", "requires an argument"),
        ("plan job.yaml --guidance 3", "--set"),  # where arguments of the model are
    ],
)
def test_an_unknown_command_or_option_ends_with_2_and_what_to_use(words: str, said: str) -> None:
    assert said in command(*words.split(), exits=2).stderr
    assert "--set" not in command("status", "out", "--guidance", "3").stderr


@pytest.mark.parametrize(
    ("words", "must_be"),
    [
        ("demo --seeds 1,5", "'1,5' must be a whole number (Number of clips per prompt, e.g. 4"),
        ("demo --seeds 2000", "'2000' must be a number of at most 1000"),
        ("status out --every x", "'x' must be a number (Seconds between"),
    ],
)
def test_a_number_that_is_none_is_answered_with_what_the_option_means(words: str, must_be: str) -> None:
    refused = command(*words.split())
    text = " ".join(refused.stderr.replace("│", " ").split())
    assert (refused.exit_code, must_be in text) == (2, True), text


@pytest.mark.parametrize("name", ["status", "gallery", "sheet", "verify", "replay", "repair"])
def test_a_file_in_place_of_an_output_is_refused_as_what_it_is(name: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("table: t.csv\nmodel: m\noutput: runs/7\n")
    (tmp_path / "t.csv").write_text("prompt\na red ball\n")
    more = {"replay": ["010e"]}.get(name, [])
    refused = command(name, tmp_path / "t.csv", *more, exits=2)
    assert f"{tmp_path / 't.csv'} is a table, not an output" in refused.stderr
    if name != "repair":  # which takes a job file, too
        refused = command(name, tmp_path / "job.yaml", *more)
        assert "is a job file, not an output" in refused.stderr
        assert f"give its output: {tmp_path / 'runs/7'}" in refused.stderr


@pytest.mark.parametrize("name", ["retry", "add", "judge"])
def test_an_output_in_place_of_a_job_file_is_refused_and_the_fix_is_named(name: str, tmp_path: Path) -> None:
    more = ["t.csv"] if name == "add" else []
    for output in (tmp_path, "s3://bucket/run-7"):
        refused = command(name, output, *more)
        assert (refused.exit_code, f"{output} is an output" in refused.stderr) == (2, True), refused.output
        assert f"framefleet {name} JOB.YAML" in refused.stderr.replace("\n", " ")
        with pytest.raises(JobError, match="a job file belongs here"):
            getattr(framefleet, name)(str(output), *more)
    table = command(name, tmp_path / "t.csv", *(["job.yaml"] if more else []))
    fix = "the job file comes first" if more else "give the job file that has it as `table`"
    assert f"hint: {fix}: framefleet {name} JOB.YAML" in table.stderr.replace("\n", " ")


def test_a_current_folder_that_was_deleted_is_named(tmp_path: Path) -> None:
    script = f"cd {tmp_path}; rmdir {tmp_path}; exec {sys.executable} -m framefleet --version"
    ended = subprocess.run(["sh", "-c", script], env=environment(), capture_output=True, text=True)
    said = "error: the current folder has been deleted\nhint: change to another folder\n"
    assert (ended.returncode, ended.stderr) == (2, said)


def test_a_folder_of_a_model_that_is_mistyped_is_guessed(tmp_path: Path) -> None:
    (tmp_path / "wan-small").mkdir()
    (tmp_path / "t.csv").write_text("prompt\na red ball\n")
    places = ("--table", tmp_path / "t.csv", "--output", tmp_path / "out")
    refused = command("plan", *places, "--model", tmp_path / "wan-smal")
    assert (refused.exit_code, f"did you mean '{tmp_path / 'wan-small'}'?" in refused.stderr) == (2, True)


def test_a_clip_is_not_saved_in_place_of_a_folder(tmp_path: Path) -> None:
    refused = command("replay", tmp_path, "1234", "--save", tmp_path, exits=2)
    assert "is a folder" in refused.stderr and "no output" not in refused.stderr


PLACES = ["--model /m", "--part vae=/v", "--lora a=/b", "--ip-adapter /i", "--second-model a=/m"]
PLACES += ["--recipe m:f", "--root /x", "--allow-pickle"]


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        *((f"verify out --fleet JOB {one}", one) for one in PLACES),
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
