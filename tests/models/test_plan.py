"""Plans that look closer: rows of each shape rendered, steps of a training trained, and nothing kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import framefleet
from framefleet.pipeline.errors import JobError
from framefleet.plugins.train import run
from tests.commands import command
from tests.jobs import job_values, prompt_rows, write_job, write_table
from tests.outputs import committed
from tests.training_jobs import training_job, write_clips


def values_of(folder: Path, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return job_values(write_table(folder / "t.parquet", rows), folder / "out", **more)


def test_a_probe_renders_rows_of_each_shape_and_predicts_the_table(tmp_path: Path) -> None:
    more = {"budget": {"price": 3600}, "keep": {"latents": [1]}, "keep_embeddings": True}
    values = values_of(tmp_path, prompt_rows(2, height=32) + prompt_rows(4), **more)
    ended = command("plan", write_job(tmp_path / "job.yaml", values), "--probe", "--json", exits=0)
    assert "note: keep_embeddings is set, and the time to store embeddings is not measured" in ended.stderr
    found = json.loads(ended.stdout)["prediction"]
    kinds = [(kind["name"], kind["num_rows"]) for kind in found["kinds"]]
    assert kinds == [("5 x 16 x 16, 32 tokens", 4), ("5 x 32 x 16, 32 tokens", 2)]
    assert (found["num_rows"], found["num_workers"], found["num_guessed"]) == (6, 2, 0)
    assert found["cost"] == pytest.approx(found["worker_s"])
    assert found["elapsed_s"] > 0 and found["num_bytes"] > 6 * 100
    assert not (tmp_path / "out").exists()


def test_a_probe_of_a_job_with_a_placement_compares_it_with_others(tmp_path: Path) -> None:
    values = values_of(tmp_path, prompt_rows(2, height=64, width=64))
    placement = {"type": "ulysses", "devices": 2}
    values["model"] = {"path": values["model"], "device": "cpu", "placement": placement}
    ended = command("plan", write_job(tmp_path / "job.yaml", values), "--probe", exits=0)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("1 clip, ")]
    kinds = [line.split(": ")[0].removeprefix("1 clip, ") for line in lines]
    assert kinds == ["one device", "components", "layers", "ulysses", "ulysses+components"]
    assert lines[0].endswith(" s") and lines[3].endswith(" of the time on one device")
    assert "needs several GPUs" in lines[1]


@pytest.mark.parametrize(
    ("placement", "message"),
    [("layers", "layers finds 2 blocks"), ("ulysses", "transformer has 2 attention heads")],
)
def test_a_denoiser_too_small_for_the_gpus_of_a_worker_is_refused(
    placement: str, message: str, tmp_path: Path
) -> None:
    job = write_job(tmp_path / "job.yaml", values_of(tmp_path, prompt_rows(1)))
    for gpus, code in ((8, 2), (2, 0)):
        placed = f"--set=model.placement={placement}"
        ended = command("plan", job, placed, f"--set=fleet.gpus_per_worker={gpus}")
        assert ended.exit_code == code, ended.stderr
        assert (message in ended.stderr) == (gpus == 8)


def test_python_gets_what_the_command_prints(tmp_path: Path) -> None:
    plan = framefleet.plan(values_of(tmp_path, prompt_rows(2, sampler="x")), gpu_memory="24GB")
    assert (plan.counts.pending, plan.prediction, plan.memory.has_gb) == (2, None, 24.0)
    assert plan.lookalikes == (("sampler", "scheduler"),)
    assert plan.carried == {"tag": "tag", "sampler": "sampler"}


def test_a_plan_calls_carried_columns_as_records_do(tmp_path: Path) -> None:
    values = values_of(tmp_path, [{"Prompt": "a red ball", "tag": 1}], columns={"prompt": "Prompt"})
    ended = command("plan", write_job(tmp_path / "job.yaml", values))
    assert "\ncarried into the records: source_Prompt, tag\n" in ended.stdout, ended.stderr


def test_a_plan_compares_workers_with_gpus_with_no_memory_of_a_machine_without_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    values = values_of(tmp_path, prompt_rows(1))
    values["model"] = {"path": values["model"], "device": "auto"}
    ended = command("plan", write_job(tmp_path / "job.yaml", values), "--set", "fleet.gpus_per_worker=2")
    (line,) = (line for line in ended.stdout.splitlines() if line.startswith("memory: "))
    assert " GB on the fullest of 2 GPUs (" in line
    some = ("--set=fleet.gpus_per_worker=4", "--set=model.placement={type: components, devices: 2}")
    ended = command("plan", tmp_path / "job.yaml", *some)
    assert line in ended.stdout.splitlines()
    assert line.endswith("there is no GPU here to compare with, so use e.g. --gpu-memory 24GB")


def test_a_plan_on_a_cpu_counts_all_weights_whatever_is_offloaded(tmp_path: Path) -> None:
    values = values_of(tmp_path, prompt_rows(3))
    plans = [
        framefleet.plan(values | {"model": {"path": values["model"], "device": "cpu", **more}}).memory
        for more in ({}, {"offload": "group"})
    ]
    assert plans[0].peak_gb == plans[1].peak_gb
    assert plans[0].place == "this machine for each of 2 workers"  # of job_values


def test_a_plan_says_what_ends_a_run_and_who_hears_of_it(tmp_path: Path) -> None:
    values = values_of(
        tmp_path,
        prompt_rows(3),
        budget={"hours": 12.0, "bytes": "500GB", "stop_at": "07:00"},
        on_end={"command": ["true", "secret"], "when": "failed"},
        keep={"latents": [1, 9]},
    )
    ended = command("plan", write_job(tmp_path / "job.yaml", values))
    assert "\nbudget: hours 12, bytes 500.0 GB, stop_at 07:00\non_end: when failed, command\n" in ended.stdout
    assert "note: keep.latents: 9 is beyond the" in ended.stderr and "secret" not in ended.stdout


def test_a_plan_says_what_is_used_of_the_budget_and_whether_it_is_spent(tmp_path: Path) -> None:
    job = committed(tmp_path, budget={"bytes": "1GB"})
    ended = command("plan", job)
    assert "\nused of the budget so far: 0.00 hours, 0.00 worker hours, " in ended.stdout
    ended = command("plan", job, "--set", "budget.bytes=1")
    assert "\n`render` would stop at once: budget.bytes is reached: all runs used" in ended.stdout
    assert "; to continue: raise budget.bytes above" in ended.stdout


def test_a_plan_tells_of_clips_that_are_gone(tmp_path: Path) -> None:
    job = committed(tmp_path)
    assert framefleet.plan(job).gone is None
    next((tmp_path / "out" / "clips").rglob("*.mp4")).unlink()
    gone = framefleet.plan(job).gone
    assert gone is not None and (gone.num_gone, gone.num_records) == (1, 6)
    ended = command("plan", job, exits=0)
    assert "damaged: 1 clip with a record" in ended.stdout


def test_a_training_is_planned_from_its_job_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its probe writes no weights, which could fill the disk of temporary files."""
    write_clips(tmp_path)
    job = training_job(tmp_path)
    written: list[object] = []
    for owner, name in ((run, "write_result"), (run.Checkpoints, "write")):
        monkeypatch.setattr(owner, name, lambda *values: written.append(values))
    ended = command("plan", job, "--probe", exits=0)
    assert "6 steps of 2 rows with 1 worker: 1.5 epochs of 8 rows" in ended.stdout
    (bucket,) = [line for line in ended.stdout.splitlines() if "5 x 16 x 16" in line]
    assert bucket.split()[-1] == "8"
    assert "s a step here" in ended.stdout
    assert not (tmp_path / "out").exists() and not written


def test_a_training_of_a_render_jobs_output_and_of_first_rows_is_refused(tmp_path: Path) -> None:
    write_clips(tmp_path, count=2)
    job = training_job(tmp_path)
    ended = command("plan", job, "--limit", "2")
    assert (ended.exit_code, "--limit: the job renders no rows" in ended.stderr) == (2, True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "job.json").write_text("{}")
    with pytest.raises(JobError, match="has clips of a render job"):
        framefleet.plan_training(job)


def test_a_plan_of_the_first_rows_reads_no_others(tmp_path: Path) -> None:
    rows = [*prompt_rows(3, height=16), *prompt_rows(2, height=32), *prompt_rows(1, height=-1)]
    job = write_job(tmp_path / "job.yaml", values_of(tmp_path, rows))
    whole = command("plan", job)
    assert whole.exit_code == 2 and "row 5" in whole.stderr
    first = command("plan", job, "--limit", "4", exits=0)
    assert "t.parquet, the first 4 rows" in first.stdout.replace("\n", "")
    plan = framefleet.plan(job, limit=4)
    assert (plan.num_rows, plan.counts.pending, [*plan.shapes.values()]) == (4, 4, [3, 1])
