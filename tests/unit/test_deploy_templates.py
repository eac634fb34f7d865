"""Templates of examples/deploy against the schemas and parsers of what reads them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from framefleet.cluster.dispatch.faults import FaultPolicy
from framefleet.jobs.job.file import load_job
from tests.jobs import ROOT

TEMPLATES = ROOT / "examples/deploy"
KUBERAY = TEMPLATES / "kuberay"
SCHEMA = json.loads((ROOT / "tests/references/kuberay.schema.json").read_text())
DRAIN_S = FaultPolicy().drain_s
SECRET = re.compile(r"(?i)(token|key|password|secret)\w*\s*[:=]\s*['\"]?[A-Za-z0-9/+]{16,}")
SKY_PYTHON = os.environ.get("SKY_PYTHON", "")  # a python that has skypilot, whose requirements are others


@cache
def manifests() -> list[tuple[str, dict[str, Any]]]:
    return list(_manifests())


def _manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield RayJobs and RayCronJobs: as files, and as kubectl makes them of a folder."""
    for name in ("base/rayjob.yaml", "raycronjob.yaml"):
        yield name, yaml.safe_load((KUBERAY / name).read_text())
    if shutil.which("kubectl"):
        for name in ("base", "kueue"):
            made = subprocess.run(["kubectl", "kustomize", KUBERAY / name], capture_output=True, check=True)
            for manifest in yaml.safe_load_all(made.stdout):
                if manifest["kind"] != "ConfigMap":
                    yield name, manifest


def pods(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    spec = manifest["spec"].get("jobTemplate", manifest["spec"])["rayClusterSpec"]
    yield spec["headGroupSpec"]["template"]["spec"]
    yield from (group["template"]["spec"] for group in spec["workerGroupSpecs"])


def test_kuberay_takes_the_manifests_and_no_misspelt_field() -> None:
    for name, manifest in manifests():
        jsonschema.validate(manifest, SCHEMA)
        text = yaml.safe_dump(manifest)
        for field in ("backoffLimit", "rayClusterSpec", "maxReplicas", "volumeMounts", "emptyDir"):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(yaml.safe_load(text.replace(field, f"{field}s")), SCHEMA)
        assert name


def test_clusters_want_a_token_and_pods_have_what_jobs_need() -> None:
    for name, manifest in manifests():
        spec = manifest["spec"].get("jobTemplate", manifest["spec"])
        assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}, name
        assert spec["backoffLimit"] and spec["activeDeadlineSeconds"] and spec["shutdownAfterJobFinishes"]
        for pod in pods(manifest):
            assert pod["terminationGracePeriodSeconds"] > DRAIN_S
            (container,) = pod["containers"]
            assert container["envFrom"] == [{"secretRef": {"name": "framefleet-secrets"}}]
            assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/dev/shm"}
            (memory,) = [one["emptyDir"] for one in pod["volumes"] if one["name"] == "shared-memory"]
            assert memory["medium"] == "Memory"
            waits = {one["name"]: float(one["value"]) for one in container["env"]}
            assert DRAIN_S < min(waits.values()) <= pod["terminationGracePeriodSeconds"]


def test_the_nightly_job_is_the_job_and_kueue_gets_a_whole_one() -> None:
    job = yaml.safe_load((KUBERAY / "base/rayjob.yaml").read_text())
    nightly = yaml.safe_load((KUBERAY / "raycronjob.yaml").read_text())
    assert nightly["spec"]["jobTemplate"] == job["spec"]
    for name, manifest in manifests():
        if name == "kueue":
            assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
            assert manifest["spec"]["suspend"] is True
            (group,) = manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]
            assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
            assert manifest["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"] is False


def test_job_files_are_jobs_whose_drains_are_shorter_than_grace_periods() -> None:
    job = load_job(TEMPLATES / "job.yaml")
    in_a_cluster = load_job(KUBERAY / "base/job.yaml")
    assert (job.fleet.address, in_a_cluster.fleet.address) == (None, "auto"), "one machine starts its own Ray"
    assert job.fleet.workers == "auto" and in_a_cluster.fleet.elastic, (
        "all machines there, or as many as needed"
    )
    for name, manifest in manifests():
        spec = manifest["spec"].get("jobTemplate", manifest["spec"])
        (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
        assert name == "kueue" or group["maxReplicas"] == in_a_cluster.fleet.max_workers
    assert job.retries.drain_s == DRAIN_S
    for template in ("slurm_cluster.sbatch", "slurm_array.sbatch"):
        (seconds,) = re.findall(r"#SBATCH --signal=B:TERM@(\d+)", (TEMPLATES / template).read_text())
        assert float(seconds) > DRAIN_S
    (seconds,) = re.findall(r"TimeoutStopSec=(\d+)", (TEMPLATES / "nightly.service").read_text())
    assert float(seconds) > DRAIN_S


def test_scripts_parse_and_nothing_holds_a_secret() -> None:
    for file in TEMPLATES.rglob("*"):
        if file.is_file():
            assert not SECRET.search(file.read_text()), file
        if file.suffix in (".sh", ".sbatch"):
            shell = "sh" if file.suffix == ".sh" else "bash"
            subprocess.run([shell, "-n", file], check=True)
            assert os.access(file, os.X_OK)


@pytest.mark.parametrize("schedule", ["", "0 1 * * *"])
def test_hugging_faces_own_command_takes_the_job(schedule: str, tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text("AWS_SECRET_ACCESS_KEY=not-to-be-seen\n")
    (tmp_path / "secrets").chmod(0o600)
    shutil.copy(TEMPLATES / "job.yaml", tmp_path)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables = {
        "PATH": path,
        "HF_TOKEN": "hf_none",
        "SECRETS": f"{tmp_path}/secrets",
        "HF_HOME": str(tmp_path),
        "SCHEDULE": schedule,
    }
    ended = subprocess.run(
        ["sh", TEMPLATES / "hf_jobs.sh", tmp_path, "--dry-run", "--namespace", "me"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    said = " ".join(ended.stdout.split())
    assert "framefleet render /job/job.yaml" in said and "flavor h200" in said, ended.stderr
    assert schedule in said
    assert "AWS_SECRET_ACCESS_KEY=***" in said and "not-to-be-seen" not in said


@pytest.mark.parametrize(
    ("code", "expected"), [(0, 0), (1, 0), (2, 2), (3, 3), (70, 70), (130, 0), (143, 143)]
)
def test_a_budget_or_a_stop_does_not_start_a_job_again(tmp_path: Path, code: int, expected: int) -> None:
    program = tmp_path / "framefleet"
    program.write_text(f"#!/bin/sh\nexit {code}\n")
    program.chmod(0o755)
    kuberay = yaml.safe_load((KUBERAY / "base/rayjob.yaml").read_text())["spec"]["entrypoint"]
    jobs = (TEMPLATES / "hf_jobs.sh").read_text()
    variables = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for command in (kuberay, jobs[jobs.index("sh -c") :]):
        assert subprocess.run(command, shell=True, env=variables).returncode == expected


def test_skypilot_starts_a_job_again_only_where_machines_or_the_store_were_lost() -> None:
    task = yaml.safe_load((TEMPLATES / "skypilot.yaml").read_text())
    assert task["resources"]["job_recovery"] == {"strategy": "FAILOVER", "recover_on_exit_codes": [3]}


@pytest.mark.parametrize("template", ["slurm_cluster.sbatch", "slurm_array.sbatch"])
def test_slurm_requeues_a_lost_job_up_to_its_tenth_run_and_one_whose_time_is_up_always(template: str) -> None:
    text = (TEMPLATES / template).read_text()
    ending = "scontrol() { echo again; }\nset -u\n" + text[text.index('if [ "$code" -eq 143 ]') :]
    job = {"SLURM_JOB_ID": "1", "SLURM_ARRAY_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "1"}
    for code, restarts, again in [
        ("3", "0", 1),
        ("3", "8", 1),
        ("3", "9", 0),
        ("143", "40", 1),
        ("1", "0", 0),
    ]:
        variables = os.environ | job | {"code": code, "SLURM_RESTART_COUNT": restarts}
        ended = subprocess.run(["bash", "-c", ending], env=variables, capture_output=True, text=True)
        assert (ended.stdout.count("again"), ended.returncode) == (again, int(code)), ended.stderr


def write_program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_one_machine_renders_whatever_doctor_says_and_a_signal_ends_its_pause(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    program = write_program(tmp_path / "framefleet", f'echo "$@" >>{runs}; [ $1 = render ] && exit 3; exit 1')
    sleep = write_program(tmp_path / "bin/sleep", f"touch {tmp_path}/pausing; exec /bin/sleep $1")
    variables = os.environ | {"FRAMEFLEET": str(program), "PATH": f"{sleep.parent}:{os.environ['PATH']}"}
    command = ["sh", TEMPLATES / "one_machine.sh", "job.yaml", "--limit", "4"]
    process = subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "pausing")
    process.terminate()
    assert process.wait(timeout=50) == 143
    assert runs.read_text().splitlines() == ["doctor job.yaml", "render job.yaml --limit 4"]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.05)


def test_a_requeued_task_of_an_array_gets_the_same_job(tmp_path: Path) -> None:
    write_program(tmp_path / "venv/bin/framefleet", 'echo "$@"')
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/b.yaml").touch()
    variables = {"VENV": f"{tmp_path}/venv", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    for _ in range(2):
        ended = subprocess.run(
            ["bash", TEMPLATES / "slurm_array.sbatch", tmp_path / "jobs"],
            env=os.environ | variables,
            capture_output=True,
            text=True,
        )
        assert ended.stdout == f"render {tmp_path}/jobs/b.yaml\n", ended.stderr
        (tmp_path / "jobs/a.yaml").touch()
    assert sorted(file.name for file in (tmp_path / "jobs").iterdir()) == [".array-7", "a.yaml", "b.yaml"]


def test_a_host_that_ssh_cannot_reach_is_left_out(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_program(tmp_path / "venv/bin/framefleet", f"echo $1 >>{runs}")
    write_program(tmp_path / "venv/bin/python", "echo RAY_AUTH_TOKEN=x")
    write_program(tmp_path / "venv/bin/ray", "exec sleep 60")
    variables = {
        "VENV": f"{tmp_path}/venv",
        "SSH": str(write_program(tmp_path / "ssh", "exit 255")),
        "ADDRESS": "127.0.0.1",
        "SECRETS": f"{tmp_path}/none",
        "TMPDIR": str(tmp_path),
        "RAY_TMPDIR": "/tmp",
    }
    ended = subprocess.run(
        ["sh", TEMPLATES / "ssh.sh", "job.yaml", "gpu-2"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, runs.read_text().split()) == (0, ["doctor", "render"]), ended.stderr
    assert "warning: gpu-2 cannot be reached" in ended.stderr


@pytest.mark.parametrize("template", ["one_machine.sh", "ssh.sh", "slurm_cluster.sbatch"])
def test_a_signal_before_the_job_has_begun_ends_it(template: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    program = f"echo $1 >>{runs}; [ $1 = doctor ] || exit 0; touch {tmp_path}/checking; sleep 2"
    framefleet = write_program(tmp_path / "venv/bin/framefleet", program)
    write_program(tmp_path / "venv/bin/python", "echo RAY_AUTH_TOKEN=x")
    for name in ("venv/bin/ray", "bin/srun"):
        write_program(tmp_path / name, "exec sleep 4")
    write_program(tmp_path / "bin/scontrol", f"echo $1 >>{runs}")
    variables = {
        "FRAMEFLEET": str(framefleet),
        "VENV": f"{tmp_path}/venv",
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "ADDRESS": "127.0.0.1",
        "SECRETS": f"{tmp_path}/none",
        "TMPDIR": str(tmp_path),
        "RAY_TMPDIR": "/tmp",
        "SLURM_JOB_ID": "1",
        "SLURM_NNODES": "1",
    }
    shell = "bash" if template.endswith("sbatch") else "sh"
    process = subprocess.Popen(
        [shell, TEMPLATES / template, "job.yaml"], env=os.environ | variables, stderr=subprocess.DEVNULL
    )
    wait_for(tmp_path / "checking")
    process.terminate()
    assert process.wait(timeout=120) == 143
    requeued = ["requeue"] if template == "slurm_cluster.sbatch" else []
    assert runs.read_text().split() == ["doctor", *requeued]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for name in ("nightly.service", "nightly.timer"):
        text = (TEMPLATES / name).read_text().replace("/srv/framefleet/one_machine.sh", "/bin/true")
        (tmp_path / name).write_text(text)
    units = [tmp_path / "nightly.service", tmp_path / "nightly.timer"]
    ended = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    assert ended.returncode == 0 and "framefleet" not in ended.stderr, ended.stderr


@pytest.mark.skipif(not SKY_PYTHON, reason="SKY_PYTHON names no python with skypilot")
def test_skypilots_own_parser_takes_the_task() -> None:
    program = (
        "import sky, sys\n"
        "task = sky.Task.from_yaml(sys.argv[1])\n"
        "(one,) = task.resources\n"
        "print(task.num_nodes, one.use_spot, dict(one.accelerators), one.job_recovery['strategy'])"
    )
    names = ("RAY_AUTH_TOKEN", "HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    ended = subprocess.run(
        [SKY_PYTHON, "-c", program, TEMPLATES / "skypilot.yaml"],
        env=os.environ | dict.fromkeys(names, "x"),
        capture_output=True,
        text=True,
    )
    assert ended.stdout.split("\n")[-2].startswith("2 True {'H100': 8}"), ended.stdout + ended.stderr


def test_the_image_is_made_of_what_is_there() -> None:
    text = (TEMPLATES / "Dockerfile").read_text()
    assert "mkdir -m 1777 /cache" in text, "for `docker run --user`"
    copied = {place for places in re.findall(r"^COPY (.+) \S+$", text, re.M) for place in places.split()}
    assert all((ROOT / place).exists() for place in copied)
    rooms = {link.resolve().name for link in (ROOT / "framefleet").iterdir() if link.is_symlink()}
    assert {"framefleet", *rooms} <= copied, "else the image lacks what the package links to"
    assert "USER framefleet" in text and "STOPSIGNAL SIGTERM" in text
    assert "RUN mkdir -m 700 ray\nENV RAY_TMPDIR=/home/framefleet/ray\n" in text
