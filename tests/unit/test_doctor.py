"""`framefleet doctor` on machines with one thing wrong: disks in namespaces, programs in place of GPUs."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

import framefleet
from framefleet import CheckResult
from framefleet.cluster.fleet import settings
from framefleet.pipeline.model import place_trial
from framefleet.plugins.doctor import doctor as doctor_file, machine, services
from framefleet.plugins.doctor.doctor import Targets, checks_of
from framefleet.plugins.doctor.machine import inspect_disks, ok, run_checks
from framefleet.plugins.doctor.services import inspect_clock
from tests.answering import Answering, answered_by
from tests.commands import command

ROOT = Path(__file__).parents[2]
# As an H100's driver prints them: memory of GPU 0 is taken, GPU 1 counts errors and is split.
_GPUS = """\
0, GPU-aa, NVIDIA H100 80GB HBM3, 570.86.15, 81559, 20011, 0, Disabled
1, GPU-bb, NVIDIA H100 80GB HBM3, 570.86.15, 81559, 81070, 3, Enabled
2, GPU-cc, NVIDIA H100 80GB HBM3, 570.86.15, 81559, 9070, [N/A], [N/A]
3, GPU-dd, NVIDIA GB10, 580.95.05, [N/A], [N/A], [N/A], [N/A]
"""
_USERS = "GPU-aa, 4711, python3, 61000\nGPU-cc, 4712, ray::Actor.exchange, 72000\n"
_LOG = "[ 12.3] NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus.\n"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for checks, and take no disk for slow, however busy this machine is."""
    values = {"_SLOW_S": math.inf, "_SLOW_MB_S": 0.0, "_PATIENCE_S": 60.0, "NEAR_S": 30.0}
    for place, name, value in ((machine, "LIMIT_S", 200.0), *((services, *one) for one in values.items())):
        monkeypatch.setattr(place, name, value)


def found(*only: str, **asked: object) -> dict[str, str]:
    """Return the states and texts of these checks on this machine, in one text for each check."""
    texts: dict[str, str] = {}
    for one in framefleet.doctor(only=only, **asked).results:  # type: ignore[arg-type]
        texts[one.check] = texts.get(one.check, "") + f"{one.state}: {one.text} | {one.fix}\n"
    return texts


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_check_that_hangs_or_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hangs() -> Iterator[CheckResult]:
        release.wait()
        yield ok("never seen")

    def raises() -> Iterator[CheckResult]:
        raise ImportError("libcuda.so.1: token=abcdefghij")
        yield

    limit = machine.LIMIT_S
    moments = iter([0.0, 0.0, 0.0, limit, limit])  # it begins, waits for the first two, and no longer

    def now() -> float:
        return next(moments) if threading.current_thread() is threading.main_thread() else 0.0

    monkeypatch.setattr(machine, "time", SimpleNamespace(monotonic=now))
    checks = {"raises": raises, "fine": lambda: [ok("well")], "hangs": hangs, "store": hangs}
    broken, fine, slow, store = run_checks(checks)
    release.set()
    assert (slow.check, slow.state, store.state) == ("hangs", "warning", "error")
    assert broken.state == "error" and "libcuda" in broken.text
    assert fine.text == "well"


def test_gpus_show_who_takes_memory_errors_and_mig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert found("gpus") == {"gpus": "ok: no NVIDIA GPU, as nvidia-smi is not here | \n"}
    for name, text in (("gpus", _GPUS), ("users", _USERS), ("log", _LOG)):
        (tmp_path / name).write_text(text)
    answer = f'case "$1" in --query-gpu*) cat {tmp_path}/gpus;; *) cat {tmp_path}/users;; esac'
    program(tmp_path, "nvidia-smi", answer)
    program(tmp_path, "dmesg", f"cat {tmp_path}/log")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    text = found("gpus")["gpus"]
    for said in (
        "warning: GPU 0: NVIDIA H100 80GB HBM3, driver 570.86.15, 19.5 of 79.6 GiB free; used by python3",
        "error: GPU 1: uncorrected memory errors (ECC): 3",
        "warning: GPU 1 is split into MIG",
        "ok: GPU 2: NVIDIA H100 80GB HBM3, driver 570.86.15, 8.9 of 79.6 GiB free; used by Ray's",
        "ok: GPU 3: NVIDIA GB10, driver 580.95.05; it shares the machine's memory",
        "error: GPU at 0000:3b:00: Xid 79, 1 time ",
    ):
        assert said in text
    program(tmp_path, "nvidia-smi", "echo 'Failed to initialize NVML: version mismatch'; exit 18")
    assert "error: nvidia-smi fails: Failed to initialize NVML" in found("gpus")["gpus"]


def test_a_processor_that_dies_on_bf16(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dying = tmp_path / "dies.py"
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)  # a developer's own
    monkeypatch.setattr(place_trial, "PROGRAM", dying)
    dying.write_text("import os\nif 'ONEDNN_MAX_CPU_ISA' not in os.environ: os.kill(os.getpid(), 4)")
    assert "warning: the processor announces instructions" in found("processor")["processor"]
    dying.write_text("import os\nos.kill(os.getpid(), 4)")
    monkeypatch.setenv("FRAMEFLEET_CACHE", str(tmp_path / "another"))
    result = command("doctor", "--only", "processor", "--json")
    said = json.loads(result.stdout)
    assert (result.exit_code, said["state"]) == (1, "error")
    assert "cannot compute in bf16, fp16 on cpu: a trial ended with SIGILL" in said["text"]
    assert "dtype: fp32" in said["fix"]


_SMALL = """
mount -t tmpfs -o size=1m tmpfs /dev/shm && mount -t tmpfs -o size=2m tmpfs {tmp} && TMPDIR={tmp} \
exec {python} -m framefleet doctor --json --only disks --only shared-memory --only open-files
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts need root and unshare")
def test_a_machine_without_space_and_shared_memory(tmp_path: Path) -> None:
    script = "ulimit -n 256" + _SMALL.format(tmp=tmp_path, python=sys.executable)
    ended = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script], cwd=ROOT, capture_output=True, text=True
    )
    said = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.returncode == 1, ended.stderr
    by_check = {(one["check"], one["state"]): one for one in said}
    assert f"GiB free in {tmp_path}" in by_check["disks", "error"]["text"]
    assert "set TMPDIR to a folder on a larger disk" in by_check["disks", "error"]["fix"]
    assert by_check["shared-memory", "error"]["text"].startswith("1 MiB free in /dev/shm")
    assert "--shm-size" in by_check["shared-memory", "error"]["fix"]
    assert "open 256 files" in by_check["open-files", "warning"]["text"]


@contextmanager
def server_with_clock(offset_s: float) -> Iterator[str]:
    class Handler(Answering):
        def do_HEAD(self) -> None:
            self.answer(403)  # as stores answer who does not sign

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string((time.time() if timestamp is None else timestamp) + offset_s)

    with answered_by(Handler) as url:
        yield url


def test_the_folder_that_tmpdir_names_is_checked_and_not_the_one_that_python_takes_instead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    texts = [result.text for result in inspect_disks()]
    assert any(str(tmp_path / "missing") in text for text in texts)


def test_a_clock_that_nothing_was_compared_with_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    (result,) = inspect_clock(None, {})
    assert (result.state, result.text[:12]) == ("warning", "not compared")


def test_a_clock_is_compared_with_the_stores() -> None:
    for offset_s, state, said in ((0, "ok", ""), (3600, "error", "behind"), (-60, "warning", "ahead")):
        with server_with_clock(offset_s) as url:
            text = found("clock", store="s3://bucket", storage_options={"endpoint_url": url})["clock"]
        assert text.startswith(f"{state}: ") and said in text
        assert ("chrony" in text) == bool(offset_s)


def test_a_store_is_written_read_and_left_clean(tmp_path: Path) -> None:
    said = found("store", store=str(tmp_path))["store"]
    assert said.startswith(f"ok: {tmp_path}: write ")
    assert "MB/s" in said and not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    assert found("store", store=str(tmp_path / "file"))["store"].startswith(
        f"error: {tmp_path / 'file'} is a file"
    )


def test_software_is_well_where_tests_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = found("libraries", "fonts", "encoders", "compiler")
    assert [name for name, text in said.items() if "error" in text] == []
    assert "torch" in said["libraries"] and "all video encoders work" in said["encoders"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "warning: no C++ compiler" in found("compiler")["compiler"]


def test_a_machine_with_another_build_or_library_is_reported() -> None:
    ours = {"framefleet": "1", "source": "a", "torch": "2.13"}
    compared = doctor_file._compared
    assert compared(ours, ours).state == "ok"
    other = compared({**ours, "torch": "2.12"}, ours)
    assert (other.state, other.text) == ("warning", "torch 2.12 (here 2.13)")
    assert compared({**ours, "source": "b"}, ours).state == "error"


def test_an_unknown_check_is_refused_with_those_there_are() -> None:
    result = command("doctor", "--only", "disk", exits=2)
    assert "disk is not a check" in result.stderr
    assert all(name in result.stderr for name in checks_of(Targets()))


def test_a_job_gives_its_store_and_the_options_of_one_that_is_named(tmp_path: Path) -> None:
    job = {"table": "t.csv", "output": str(tmp_path / "run"), "model": "org/name"}
    assert str(tmp_path / "run") in found("store", job=job)["store"]
    options = {"storage_options": {"key": "k", "secret": "s", "made_up": 1}}
    assert "made_up" in found("store", job=job | options, store="s3://bucket/x")["store"]


def test_each_model_of_a_job_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    single = {"path": "x.safetensors", "base": str(tmp_path / "a")}
    models = {"models": {"a": single, "b": str(tmp_path / "b")}}
    job = {"table": "t.csv", "output": "out", **models, "second_models": {"c": str(tmp_path / "c")}}
    texts = found("hub", job=job)["hub"].splitlines()
    assert [text.partition(" |")[0] for text in texts] == [
        f"ok: {tmp_path}/a can be opened",
        *(f"error: model '{tmp_path}/{name}' is not a folder" for name in "bc"),
    ]


@pytest.mark.parametrize(
    ("key", "models"),
    [
        ("model.device", {"model": {"path": "m", "device": "cuda"}}),
        ("models.b.device", {"models": {"a": "m", "b": {"path": "m", "device": "cuda"}}}),
    ],
)
def test_a_device_of_the_job_that_is_not_here_is_an_error(
    key: str, models: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"table": "t.csv", "output": "out", **models}
    for num, answers in ((0, {"fleet": f"error: {key} is cuda, but this machine has no GPU"}), (1, {})):
        monkeypatch.setattr(settings, "num_gpus_here", lambda num=num: num)
        seen = {check: text.partition(" |")[0] for check, text in found("fleet", job=job).items()}
        assert seen == answers
