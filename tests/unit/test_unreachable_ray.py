"""What can be known before Ray starts: an address where nobody answers, and a GPU that is not there."""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import RpcError

import framefleet
from framefleet import FleetError, JobError, ModelError, OutputInUse, Store
from framefleet.cluster.driver.lock import DriverLock
from framefleet.cluster.fleet import connection, settings
from framefleet.cluster.fleet.connection import connect
from framefleet.jobs.job.file import check_gpu, load_job
from framefleet.plugins.deploy import submission
from tests.commands import command
from tests.jobs import job_values, prompt_rows, write_job, write_table


def refusal(address: str = "auto") -> FleetError:
    """Return why this process cannot join what is there; `auto`: what it finds."""
    with pytest.raises(FleetError) as raised, connect(address, num_cpus=1):
        """It is joined."""
    return raised.value


@pytest.fixture(autouse=True)
def _no_ray_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide GPUs, should this machine have some."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_an_address_that_a_dead_ray_left_is_refused_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert "Could not find any running Ray" in refusal().problem
    file = tmp_path / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    file.write_text("127.0.0.1:1")
    error = refusal()
    assert "no Ray cluster answers at 127.0.0.1:1" in error.problem and str(file) in error.fix
    file.write_text("half a line\nof what it was")
    error = refusal()
    assert "which is not HOST:PORT" in error.problem and str(file) in error.fix
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:2")
    error = refusal()
    assert "at 127.0.0.1:2" in error.problem and "RAY_ADDRESS" in error.fix


@pytest.mark.parametrize("address", ["http://10.0.0.5:8265", "ray://10.0.0.5:10001", "10.0.0.5"])
def test_an_address_that_is_not_of_a_head_is_refused_with_its_form(address: str) -> None:
    with pytest.raises(FleetError, match="is not HOST:PORT") as refusal, connect(address, num_cpus=1):
        """It is joined."""
    assert "10.0.0.5:6379" in refusal.value.fix
    assert refusal.value.exit_code == connection.needs_token("the Ray cluster").exit_code == 2


@pytest.mark.parametrize("address", [None, "127.0.0.1:1"])
def test_a_token_that_ray_cannot_read_is_named(
    address: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    for place, why in ((tmp_path / "tokn", "cannot be read: No such file"), (tmp_path / "token", "is empty")):
        (tmp_path / "token").write_text("\n")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(place))
        named = f"RAY_AUTH_TOKEN_PATH names {place}, which {why}"
        with pytest.raises(FleetError, match=named) as refusal, connect(address, num_cpus=1):
            """It is joined."""
        assert refusal.value.exit_code == 2


@pytest.mark.parametrize("variable", [None, "RAY_ADDRESS"])
def test_a_client_of_ray_is_no_job_server(variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable:
        monkeypatch.setenv(variable, "ray://127.0.0.1:1")
    with pytest.raises(JobError, match=" for Ray Client") as refusal:
        submission.find_submission(None if variable else "ray://127.0.0.1:1", "/out")
    assert "http://HOST:8265" in refusal.value.fix


@pytest.mark.parametrize(
    ("address", "variable", "source"),
    [
        ("10.0.0.5:6379", None, "--address"),
        ("10.0.0.5:6379", "RAY_ADDRESS", "--address"),
        (None, "RAY_ADDRESS", "RAY_ADDRESS"),
    ],
)
def test_a_job_server_that_cannot_be_asked_is_named_by_what_gives_it(
    monkeypatch: pytest.MonkeyPatch, address: str | None, variable: str | None, source: str
) -> None:
    def refuse(server: str | None) -> None:
        assert server is None or "RAY_ADDRESS" not in os.environ, "Ray prefers it to an address"
        raise RpcError("Timed out")

    monkeypatch.setattr(submission, "JobSubmissionClient", refuse)
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "10.0.0.5:6379" if address is None else "10.0.0.6:6379")
    with pytest.raises(FleetError, match="the Ray job server at 10") as refusal:
        submission.find_submission(address, "out")
    assert "10.0.0.5" in refusal.value.problem
    assert refusal.value.fix.startswith(f"write {source} as http://HOST:8265")
    assert os.environ.get("RAY_ADDRESS") == (variable and os.environ[variable])


def test_no_job_is_submitted_for_an_output_in_use(tmp_path: Path) -> None:
    values = job_values(write_table(tmp_path / "t.parquet", prompt_rows(1)), tmp_path / "out")
    with (
        DriverLock(Store(str(tmp_path / "out"))),
        pytest.raises(OutputInUse, match="is being written by pid"),
    ):
        submission.submit(values, address="http://127.0.0.1:1")


@contextmanager
def answering(text: bytes) -> Iterator[str]:
    """Yield the address of a server that says this to each that connects, and nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    stack.enter_context(server.accept()[0]).sendall(text)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("is_found", [True, False])
def test_a_ray_that_says_nothing_is_refused_in_time(is_found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RAY_ANSWERS_S", 0.2)
    with answering(b"") as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        error = refusal("auto" if is_found else address)
    assert f"no Ray cluster answers at {address}: timed out" in error.problem


def test_a_ray_that_answers_and_lets_nobody_join_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "JOIN_S", 1.0)
    with answering(bytes(9)) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert "lets nobody join within 1 s" in refusal().problem


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"fleet": {"gpus_per_worker": 2}}, "fleet.gpus_per_worker is 2, but this machine has no GPU"),
        ({"fleet": {"gpus_per_worker": 1}}, "fleet.gpus_per_worker is 1, but this machine has no GPU"),
        ({"model": {"path": "m", "device": "cuda"}}, "model.device is cuda, but this machine has no GPU"),
        ({"model": {"path": "m", "device": "cuda:0"}}, "model.device is cuda:0, but"),
        ({"model": {"path": "m", "device": "mps"}}, "model.device is mps, but this machine has no GPU"),
    ],
)
def test_a_gpu_that_is_not_here_is_refused_before_ray_starts(
    more: dict[str, object], said: str, tmp_path: Path, no_gpu: None
) -> None:
    table = write_table(tmp_path / "t.parquet", prompt_rows(1))
    values = job_values(table, tmp_path / "out") | {"fleet": {}} | more
    job = write_job(tmp_path / "job.yaml", values)
    with pytest.raises(JobError, match=said):
        check_gpu(load_job(values))
    assert re.search(rf"job\.yaml line \d+: {said}", " ".join(command("render", job, exits=2).stderr.split()))
    assert not (tmp_path / "out").exists()
    assert load_job(job), "elsewhere there may be one"
    for elsewhere in ([], ["--set", "fleet.address=10.0.0.1:6379"]):
        planned = " ".join(command("plan", job, *elsewhere).stderr.split())
        assert (f"would stop here: {said}" in planned) == (not elsewhere), planned
    check_gpu(load_job(values | {"fleet": {"address": "10.0.0.1:6379"}}))


def test_a_training_refuses_a_gpu_that_is_not_here(tmp_path: Path, no_gpu: None) -> None:
    places = {"table": str(tmp_path / "t.parquet"), "output": str(tmp_path / "out")}
    values = {**places, "model": {"path": "m", "device": "cuda"}, "train": {"steps": 1}}
    job = write_job(tmp_path / "train.yaml", values)
    problem = "model.device is cuda, but this machine has no GPU"
    ended = command("train", job)
    assert ended.exit_code == 2 and problem in ended.stderr and "train.yaml line" in ended.stderr
    planned = " ".join(command("plan", job).stderr.split())
    assert f"`train` would stop here: {problem}" in planned
    elsewhere = command("train", job, "--set", "fleet.address=10.0.0.1:6379").stderr
    assert "is not a folder" in elsewhere and problem not in elsewhere


def test_a_worker_may_have_as_many_gpus_as_are_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "num_gpus_here", lambda: 1)
    values = job_values(tmp_path / "t.parquet", tmp_path / "out")
    with pytest.raises(JobError, match="gpus_per_worker is 2, but this machine has 1 GPU"):
        check_gpu(load_job(values | {"fleet": {"gpus_per_worker": 2}}))
    check_gpu(load_job(values | {"fleet": {"gpus_per_worker": 1}}))


@pytest.mark.parametrize("stays", [False, True])
def test_gpus_of_the_cluster_that_a_program_uses_are_not_looked_for_here(
    stays: bool, tmp_path: Path, no_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"output": str(tmp_path / "out"), "model": "./none", "fleet": {"gpus_per_worker": 1}}

    def render() -> object:
        if not stays:
            return framefleet.render(values, table=prompt_rows(1))
        with framefleet.fleet(values) as fleet:
            return fleet.render(prompt_rows(1))

    with pytest.raises(JobError, match="this machine has no GPU"):
        render()
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    with pytest.raises(ModelError, match="none"):
        render()
