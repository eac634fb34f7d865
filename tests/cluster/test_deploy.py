"""The templates of examples/deploy that run here: one machine, SSH and Slurm, on hosts of namespaces."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.jobs import ROOT, job_values, prompt_rows, records_of, write_job, write_table
from tools.chaos.network import Host, network, why_not

pytestmark = pytest.mark.timeout(900)
TEMPLATES = ROOT / "examples/deploy"
VENV = Path(sys.executable).parent.parent
WITHIN_S = 300.0  # 40 s on a free machine


def missing(*programs: str) -> str:
    """Return why these cannot run here; "" where they can."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    absent = [name for name in programs if shutil.which(name, path=path) is None]
    return why_not() or (f"{', '.join(absent)} are not installed" if absent else "")


def job(folder: Path, *, num_rows: int = 4, name: str = "job", **more: int) -> Path:
    """Write a small job, as a user of a cluster would, without an address. more: columns of every row."""
    folder.mkdir(exist_ok=True)
    table = write_table(folder / f"{name}.parquet", [row | more for row in prompt_rows(num_rows)])
    values = job_values(table, folder / f"{name}-output")
    return write_job(folder / f"{name}.yaml", values)


def wait_for(what: Callable[[], bool], why: Callable[[], str] = str, *, timeout_s: float = WITHIN_S) -> None:
    ends_at = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < ends_at, why()
        time.sleep(0.5)


def inside(host: Host, *command: str | Path) -> list[str]:
    """Return a command that runs on a host."""
    return ["nsenter", f"--target={host.pid}", "--net", "--uts", "--mount", "--", *map(str, command)]


@contextmanager
def daemon(host: Host, log: Path, *command: str | Path) -> Iterator[None]:
    with open(log, "ab") as output:
        process = subprocess.Popen(inside(host, *command), stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


@contextmanager
def hosts(num_hosts: int, shared: Path) -> Iterator[list[Host]]:
    """Yield hosts on which the folder `shared` is a small disk of their own, as /tmp is of machines."""
    shared.mkdir()
    with network(num_hosts) as (_, made):
        for host in made:
            subprocess.run(inside(host, "mount", "--bind", host.tmp, shared), check=True)
        yield made


def environment(folder: Path, ray: Path) -> dict[str, str]:
    """Return what a user sets: the virtual environment, and a file of secrets."""
    secrets = folder / "secrets"
    secrets.write_text(f"RAY_TMPDIR={ray}\nAWS_SECRET_ACCESS_KEY=not-to-be-seen\n")
    secrets.chmod(0o600)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "VENV": str(VENV), "SECRETS": str(secrets), "HOME": str(folder), "OMP_NUM_THREADS": "1"}


@pytest.mark.skipif(bool(missing("sshd", "ssh", "ssh-keygen")), reason=missing("sshd", "ssh", "ssh-keygen"))
def test_ssh_starts_ray_with_a_token_renders_and_leaves_nothing(tmp_path: Path) -> None:
    key, ray = tmp_path / "key", Path("/tmp") / f"ff-{os.getpid()}"
    Path("/run/sshd").mkdir(exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    config = tmp_path / "sshd_config"
    config.write_text(
        f"HostKey {key}\nAuthorizedKeysFile {key}.pub\nStrictModes no\nUsePAM no\nPidFile none\n"
        f"SetEnv HOME={tmp_path} OMP_NUM_THREADS=1\n"
    )
    options = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, ray, ignore_errors=True)
        first, *others = stack.enter_context(hosts(3, ray))
        for host in others:
            log = tmp_path / f"sshd-{host.name}"
            stack.enter_context(daemon(host, log, "/usr/sbin/sshd", "-D", "-e", "-f", config))
        variables = environment(tmp_path, ray) | {"SSH": f"ssh -i {key} {options}", "RAY_TMPDIR": str(ray)}
        began = time.monotonic()
        ended = subprocess.run(
            inside(
                first, "sh", TEMPLATES / "ssh.sh", job(tmp_path / "jobs"), *(host.address for host in others)
            ),
            env=variables,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
        )
        print(f"{time.monotonic() - began:.0f} s\n{ended.stdout}\n{ended.stderr}")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        records = records_of(tmp_path / "jobs/job-output")
        assert len(records) == 4
        for host in (first, *others):
            assert f"{host.name} ({host.address})" in ended.stdout
            assert not host.processes(called="raylet") and not host.processes(called="gcs_server")
        assert not list(tmp_path.glob(".framefleet-*")), "tokens and logs are gone"
        assert "not-to-be-seen" not in ended.stdout + ended.stderr


_SLURM = ("slurmctld", "slurmd", "sbatch", "scontrol")
# Two machines that run jobs here, and four as the template wants them, which are only planned with.
# A job that was requeued waits until credentials have expired.
_SLURM_CONF = """
ClusterName=test
SlurmctldHost=h1({head})
AuthType=auth/none
AuthInfo=cred_expire=20
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
MpiDefault=none
JobRequeue=1
KillWait=60
GresTypes=gpu
NodeName=h1 NodeAddr={head} CPUs=2 RealMemory=4000
NodeName=h2 NodeAddr={other} CPUs=2 RealMemory=4000
SlurmdParameters=config_overrides
NodeName=g[1-4] NodeHostname=h1 NodeAddr={head} Port=17001-17004 CPUs=64 RealMemory=512000 Gres=gpu:8
PartitionName=here Nodes=h[1-2] Default=YES State=UP MaxTime=INFINITE
PartitionName=gpus Nodes=g[1-4] State=UP MaxTime=INFINITE
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if why := missing(*_SLURM):
        pytest.skip(why)
    folder, ray = tmp_path_factory.mktemp("slurm"), Path("/tmp") / f"fs-{os.getpid()}"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, ray, ignore_errors=True)
        first, second = stack.enter_context(hosts(2, ray))
        (folder / "state").mkdir()
        conf = folder / "slurm.conf"
        conf.write_text(_SLURM_CONF.format(folder=folder, head=first.address, other=second.address))
        (folder / "gres.conf").write_text(f"NodeName=g[1-4] Name=gpu File={folder}/gpu[0-7]\n")
        for number in range(8):
            (folder / f"gpu{number}").symlink_to("/dev/null")
        stack.enter_context(daemon(first, folder / "slurmctld.log", "slurmctld", "-D", "-f", conf))
        for host, name in [(first, "h1"), (second, "h2"), *((first, f"g{number}") for number in range(1, 5))]:
            log = folder / f"slurmd-{name}.log"
            stack.enter_context(daemon(host, log, "slurmd", "-D", "-N", name, "-f", conf))
        made = Slurm(first, folder, environment(folder, ray) | {"SLURM_CONF": str(conf)})
        wait_for(lambda: made.run("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == "6", timeout_s=60)
        yield made


class Slurm:
    """A cluster of two machines, of which `head` has the controller."""

    def __init__(self, head: Host, folder: Path, env: dict[str, str]) -> None:
        self.head, self.folder, self._env = head, folder, env

    def run(self, *command: str | Path, check: bool = False) -> str:
        """Return what a command of Slurm's prints."""
        ended = subprocess.run(
            inside(self.head, *command), env=self._env, capture_output=True, text=True, cwd=self.folder
        )
        assert not check or ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def submit(self, template: str, *options: str | Path) -> str:
        """Submit a template with less than it asks for; return the job's number."""
        small = ("--gpus-per-node=0", "--cpus-per-task=2", "--mem=1000")
        log = f"--output={self.folder}/%A.log"
        said = self.run("sbatch", "--parsable", *small, log, *options[:-1], TEMPLATES / template, options[-1])
        assert said.strip().isdecimal(), said
        return said.strip()

    def state(self, number: str) -> str:
        return self.run("squeue", "-h", "-t", "all", "-j", number, "-o", "%T").strip()

    def log(self, number: str) -> str:
        file = self.folder / f"{number}.log"
        return (
            file.read_text(errors="replace") if file.exists() else self.run("scontrol", "show", "job", number)
        )


def test_slurm_takes_the_templates_as_they_are(slurm: Slurm) -> None:
    for template, more in (("slurm_cluster.sbatch", ()), ("slurm_array.sbatch", ("--array=1-3%2",))):
        said = slurm.run("sbatch", "--test-only", "-p", "gpus", *more, TEMPLATES / template, "x", check=True)
        assert "to start at" in said


def test_a_cluster_in_slurm_drains_when_its_time_is_up_and_goes_on_when_requeued(slurm: Slurm) -> None:
    file = job(slurm.folder / "jobs", num_rows=12, num_inference_steps=200)
    number = slurm.submit("slurm_cluster.sbatch", "--nodes=2", file)
    wait_for(lambda: "workers rendering" in slurm.log(number), lambda: slurm.log(number))
    slurm.run("scancel", "--batch", "--signal=TERM", number)  # as --signal=B:TERM@300 has it sent
    wait_for(lambda: slurm.state(number) == "PENDING", lambda: slurm.log(number))
    num_before = len(records_of(slurm.folder / "jobs/job-output"))
    wait_for(lambda: slurm.state(number) in ("COMPLETED", "FAILED"), lambda: slurm.log(number))
    log = slurm.log(number)
    assert slurm.state(number) == "COMPLETED", log
    assert "interrupted" in log and "h2 (" in log and "not-to-be-seen" not in log
    assert num_before < len(records_of(slurm.folder / "jobs/job-output")) == 12


def test_an_array_in_slurm_renders_the_jobs_of_a_folder(slurm: Slurm) -> None:
    for name in ("a", "b"):
        job(slurm.folder / "many", name=name)
    number = slurm.submit("slurm_array.sbatch", "--array=1-2", slurm.folder / "many")
    wait_for(lambda: set(slurm.state(number).split()) <= {"COMPLETED", "FAILED"}, lambda: slurm.log(number))
    assert slurm.state(number).split() == ["COMPLETED"] * 2, slurm.log(number)
    assert [len(records_of(slurm.folder / f"many/{name}-output")) for name in ("a", "b")] == [4, 4]
