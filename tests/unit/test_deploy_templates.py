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
from subprocess import PIPE, Popen
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


@cache
def manifests() -> list[tuple[str, dict[str, Any]]]:
    """RayJobs and RayCronJobs: as files, and as kubectl makes them of a folder."""
    names = ("base/rayjob.yaml", "raycronjob.yaml")
    found = [(name, yaml.safe_load((KUBERAY / name).read_text())) for name in names]
    for name in ("base", "kueue") if shutil.which("kubectl") else ():
        made = subprocess.run(["kubectl", "kustomize", KUBERAY / name], capture_output=True, check=True)
        found += [(name, one) for one in yaml.safe_load_all(made.stdout) if one["kind"] != "ConfigMap"]
    return found


def write_program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def start(template: str, *arguments: object, path: Path | None = None, **variables: object) -> Popen[str]:
    environment = os.environ | {name: str(value) for name, value in variables.items()}
    environment["PATH"] = f"{path or '/bin'}:{environment['PATH']}"
    shell = "bash" if template.endswith("sbatch") else "sh"
    words = [shell, str(TEMPLATES / template), *map(str, arguments)]
    return Popen(words, env=environment, stdout=PIPE, stderr=PIPE, text=True)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.05)


def pods(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    spec = manifest["spec"].get("jobTemplate", manifest["spec"])["rayClusterSpec"]
    yield spec["headGroupSpec"]["template"]["spec"]
    yield from (group["template"]["spec"] for group in spec["workerGroupSpecs"])


def test_kuberay_takes_the_manifests_and_no_misspelt_field() -> None:
    for name, manifest in manifests():
        jsonschema.validate(manifest, SCHEMA)
        text = yaml.safe_dump(manifest)
        for field in ("backoffLimit", "maxReplicas", "volumeMounts"):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(yaml.safe_load(text.replace(field, f"{field}s")), SCHEMA)
        if name == "raycronjob.yaml":
            job = yaml.safe_load((KUBERAY / "base/rayjob.yaml").read_text())
            assert manifest["spec"]["jobTemplate"] == job["spec"], "the nightly job is the job"
        if name == "kueue":
            (group,) = manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]
            assert group["replicas"] == group["minReplicas"] == group["maxReplicas"], "a whole one"


def test_clusters_want_a_token_and_pods_have_what_jobs_need() -> None:
    for name, manifest in manifests():
        spec = manifest["spec"].get("jobTemplate", manifest["spec"])
        assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}, name
        for pod in pods(manifest):
            assert pod["terminationGracePeriodSeconds"] > DRAIN_S
            (container,) = pod["containers"]
            assert container["envFrom"] == [{"secretRef": {"name": "framefleet-secrets"}}]
            waits = {one["name"]: float(one["value"]) for one in container["env"]}
            assert DRAIN_S < min(waits.values()) <= pod["terminationGracePeriodSeconds"]


def test_job_files_are_jobs_whose_drains_are_shorter_than_grace_periods() -> None:
    job = load_job(TEMPLATES / "job.yaml")
    in_a_cluster = load_job(KUBERAY / "base/job.yaml")
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
    variables = {"HF_TOKEN": "hf_none", "SECRETS": tmp_path / "secrets", "HF_HOME": tmp_path}
    arguments = (tmp_path, "--dry-run", "--namespace", "me")
    ours = Path(sys.executable).parent
    stdout, stderr = start("hf_jobs.sh", *arguments, path=ours, SCHEDULE=schedule, **variables).communicate()
    said = " ".join(stdout.split())
    assert "framefleet render /job/job.yaml" in said and "flavor h200" in said, stderr
    assert schedule in said
    assert "AWS_SECRET_ACCESS_KEY=***" in said and "not-to-be-seen" not in said


def test_a_budget_or_a_stop_does_not_start_a_job_again(tmp_path: Path) -> None:
    kuberay = yaml.safe_load((KUBERAY / "base/rayjob.yaml").read_text())["spec"]["entrypoint"]
    jobs = (TEMPLATES / "hf_jobs.sh").read_text()
    variables = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for code, expected in ((0, 0), (1, 0), (2, 2), (3, 3), (70, 70), (130, 0), (143, 143)):
        write_program(tmp_path / "framefleet", f"exit {code}")
        for command in (kuberay, jobs[jobs.index("sh -c") :]):
            assert subprocess.run(command, shell=True, env=variables).returncode == expected


@pytest.mark.parametrize("template", ["slurm_cluster.sbatch", "slurm_array.sbatch"])
def test_slurm_requeues_a_lost_job_up_to_its_tenth_run_and_one_whose_time_is_up_always(template: str) -> None:
    text = (TEMPLATES / template).read_text()
    ending = "scontrol() { echo again; }\nset -u\n" + text[text.index('if [ "$code" -eq 143 ]') :]
    job = {"SLURM_JOB_ID": "1", "SLURM_ARRAY_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "1"}
    for code, restarts, again in ((3, 0, 1), (3, 8, 1), (3, 9, 0), (143, 40, 1), (1, 0, 0)):
        variables = os.environ | job | {"code": str(code), "SLURM_RESTART_COUNT": str(restarts)}
        ended = subprocess.run(["bash", "-c", ending], env=variables, capture_output=True, text=True)
        assert (ended.stdout.count("again"), ended.returncode) == (again, code), ended.stderr


def test_one_machine_renders_whatever_doctor_says_and_a_signal_ends_its_pause(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    program = write_program(tmp_path / "framefleet", f'echo "$@" >>{runs}; [ $1 = render ] && exit 3; exit 1')
    sleep = write_program(tmp_path / "bin/sleep", f"touch {tmp_path}/pausing; exec /bin/sleep $1")
    words = ("job.yaml", "--limit", "4")
    with start("one_machine.sh", *words, path=sleep.parent, FRAMEFLEET=program) as process:
        wait_for(tmp_path / "pausing")
        process.terminate()
    assert process.returncode == 143
    assert runs.read_text().splitlines() == ["doctor job.yaml", "render job.yaml --limit 4"]


def test_a_requeued_task_of_an_array_gets_the_same_job(tmp_path: Path) -> None:
    write_program(tmp_path / "venv/bin/framefleet", 'echo "$@"')
    (jobs := tmp_path / "jobs").mkdir()
    (jobs / "b.yaml").touch()
    variables = {"VENV": tmp_path / "venv", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    for _ in range(2):
        stdout, stderr = start("slurm_array.sbatch", jobs, **variables).communicate()
        assert stdout == f"render {jobs}/b.yaml\n", stderr
        (jobs / "a.yaml").touch()
    assert sorted(file.name for file in jobs.iterdir()) == [".array-7", "a.yaml", "b.yaml"]


def cluster_of(folder: Path, framefleet: str) -> dict[str, object]:
    """Return the variables of a template with these programs in place of framefleet and Ray."""
    write_program(folder / "venv/bin/framefleet", framefleet)
    write_program(folder / "venv/bin/python", "echo RAY_AUTH_TOKEN=x")
    write_program(folder / "venv/bin/ray", "exec sleep 60")
    places = {"VENV": folder / "venv", "SECRETS": folder / "none", "TMPDIR": folder, "RAY_TMPDIR": "/tmp"}
    return places | {"ADDRESS": "127.0.0.1", "FRAMEFLEET": folder / "venv/bin/framefleet"}


def test_a_host_that_ssh_cannot_reach_is_left_out(tmp_path: Path) -> None:
    variables = cluster_of(tmp_path, f"echo $1 >>{tmp_path}/runs")
    ssh = write_program(tmp_path / "ssh", "exit 255")
    process = start("ssh.sh", "job.yaml", "gpu-2", SSH=ssh, **variables)
    _, stderr = process.communicate(timeout=120)
    assert (process.returncode, (tmp_path / "runs").read_text().split()) == (0, ["doctor", "render"]), stderr
    assert "warning: gpu-2 cannot be reached" in stderr


@pytest.mark.parametrize("template", ["one_machine.sh", "ssh.sh", "slurm_cluster.sbatch"])
def test_a_signal_before_the_job_has_begun_ends_it(template: str, tmp_path: Path) -> None:
    runs, waits = tmp_path / "runs", f"until [ -e {tmp_path}/told ]; do sleep 0.05; done"
    program = f"echo $1 >>{runs}; [ $1 = doctor ] || exit 0; touch {tmp_path}/checking; {waits}"
    variables = cluster_of(tmp_path, program)
    for name in ("venv/bin/ray", "bin/srun"):
        write_program(tmp_path / name, "exec sleep 4")
    write_program(tmp_path / "bin/scontrol", f"echo $1 >>{runs}")
    job = {"SLURM_JOB_ID": "1", "SLURM_NNODES": "1"}
    with start(template, "job.yaml", path=tmp_path / "bin", **variables, **job) as process:
        wait_for(tmp_path / "checking")
        process.terminate()
        (tmp_path / "told").touch()
    assert process.returncode == 143
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


def test_the_image_is_made_of_what_is_there() -> None:
    text = (TEMPLATES / "Dockerfile").read_text()
    copied = {place for places in re.findall(r"^COPY (.+) \S+$", text, re.M) for place in places.split()}
    assert all((ROOT / place).exists() for place in copied)
    rooms = {link.resolve().name for link in (ROOT / "framefleet").iterdir() if link.is_symlink()}
    assert {"framefleet", *rooms} <= copied, "else the image lacks what the package links to"
